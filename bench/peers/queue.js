// BullMQ: drains a backlog, then the latency of single jobs. Figures go to standard output as JSON.
// Usage: node queue.js REDIS_PORT CONCURRENCY BACKLOG SINGLES
const { Queue, Worker } = require("bullmq");

const [port, concurrency, backlog, singles] = process.argv.slice(2).map(Number);
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const fill = "x".repeat(150);
const options = { removeOnComplete: true, removeOnFail: true };
const clock = () => Number(process.hrtime.bigint()) / 1e9;
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// Resolves once `count` jobs have been seen; `handle` runs at each one's first line.
function consume(name, count, handle) {
  return new Promise((done) => {
    let seen = 0;
    const worker = new Worker(
      name,
      async (job) => {
        handle(job.data.sent);
        if (++seen === count) setImmediate(() => worker.close(true).then(done));
      },
      { connection, concurrency },
    );
    worker.on("error", () => {});
  });
}

async function drain() {
  const queue = new Queue("drain", { connection });
  const began = clock();
  for (let low = 0; low < backlog; low += 200) {
    const size = Math.min(200, backlog - low);
    await queue.addBulk(Array.from({ length: size }, () => ({ name: "job", data: { sent: 0, fill }, opts: options })));
  }
  const enqueued = clock() - began;
  let first = 0;
  let last = 0;
  await consume("drain", backlog, () => {
    last = clock();
    if (first === 0) first = last;
  });
  await queue.close();
  return { enqueue_per_s: backlog / enqueued, drain_per_s: backlog / (last - first) };
}

async function latency() {
  const queue = new Queue("latency", { connection });
  const samples = [];
  const finished = consume("latency", singles, (sent) => samples.push(clock() - sent));
  await pause(1);
  for (let number = 0; number < singles; number++) {
    await queue.add("job", { sent: clock(), fill }, options);
    await pause(0.01);
  }
  await finished;
  await queue.close();
  samples.sort((a, b) => a - b);
  const at = (share) => samples[Math.min(Math.floor(samples.length * share), samples.length - 1)] * 1000;
  return { latency_ms_p50: at(0.5), latency_ms_p99: at(0.99) };
}

(async () => {
  const figures = { ...(await drain()), ...(await latency()) };
  process.stdout.write(JSON.stringify(figures) + "\n", () => process.exit(0));
})();
