import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.concurrent.CompletableFuture;

/** Asks a door as every JDK client does over http: with `Upgrade: h2c`, until it is answered in HTTP/1.1. */
public class JdkClient {
    public static void main(String[] arguments) throws Exception {
        String stream = arguments[0] + "/-/v1/streams/notes";
        // A new client each time: it asks for HTTP/2 where it does not know the server yet.
        say(HttpClient.newHttpClient().send(post(stream, BodyPublishers.ofString("fixed")), BodyHandlers.ofString()));
        byte[] bytes = "chunked".repeat(10_000).getBytes(StandardCharsets.UTF_8);
        say(HttpClient.newHttpClient().send(
            post(stream, BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes))), BodyHandlers.ofString()));
        HttpClient client = HttpClient.newHttpClient();
        say(client.send(HttpRequest.newBuilder(URI.create(arguments[0] + "/healthz")).build(), BodyHandlers.ofString()));
        var asked = new ArrayList<CompletableFuture<HttpResponse<String>>>();
        for (int number = 0; number < 20; number++) {
            asked.add(client.sendAsync(post(stream, BodyPublishers.ofString("n" + number)), BodyHandlers.ofString()));
        }
        for (var each : asked) say(each.join());
    }

    static HttpRequest post(String address, HttpRequest.BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(address)).header("content-type", "text/plain").POST(body).build();
    }

    static void say(HttpResponse<String> answer) {
        System.out.println(answer.statusCode());
    }
}
