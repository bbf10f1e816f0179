// Sends CloudEvents as the JavaScript SDK writes them: one JSON array of [mode, event] on standard input.
import http from "node:http";
import { CloudEvent, HTTP } from "cloudevents";

const address = process.argv[2];
let given = "";
for await (const part of process.stdin) given += part;

// Node's headers are Latin-1; what is beyond it has to come as the bytes of UTF-8.
const header = (text) => (/[^\u0000-\u00ff]/.test(text) ? Buffer.from(text).toString("latin1") : text);

function send({ headers, body }) {
  return new Promise((resolve, reject) => {
    const written = Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, header(String(text))]));
    const request = http.request(address, { method: "POST", headers: written }, (answer) => {
      answer.resume().on("end", () => resolve(answer.statusCode));
    });
    request.on("error", reject);
    // With a body of text Node would write the headers as UTF-8 as well.
    request.end(body === undefined ? undefined : Buffer.from(body));
  });
}

for (const [mode, event] of JSON.parse(given)) console.log(await send(HTTP[mode](new CloudEvent(event))));
