// The JDK's own server; /back asks reviews, so itself again, through the JDK's own client.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Executors;

public class Ratings {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpServer server = HttpServer.create(new InetSocketAddress(9080), 0);
        server.createContext("/", exchange -> {
            byte[] body = "java".getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.createContext("/back", exchange -> {
            String said;
            int status = 200;
            try {
                HttpRequest request = HttpRequest.newBuilder(URI.create("http://reviews:9080/")).build();
                said = "java < " + client.send(request, HttpResponse.BodyHandlers.ofString()).body();
            } catch (Exception error) {
                said = error.toString();
                status = 502;
            }
            exchange.sendResponseHeaders(status, said.getBytes().length);
            exchange.getResponseBody().write(said.getBytes());
            exchange.close();
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
    }
}
