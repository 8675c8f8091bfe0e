package chronik.e2e;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/**
 * What the Java client shares with those in other languages: the command line, the records of a story and one JSON object per
 * line of output. The commands are described in ../python/story.py.
 */
final class Story {
    static final long PATIENCE_MS = 120_000;
    private static final ObjectMapper JSON = new ObjectMapper();

    final String command;
    private final Map<String, String> options = new HashMap<>();

    Story(String[] words) {
        command = words[0];
        for (int i = 1; i + 1 < words.length; i += 2) {
            options.put(words[i].substring(2), words[i + 1]);
        }
    }

    String get(String name) {
        return options.get(name);
    }

    String get(String name, String otherwise) {
        return options.getOrDefault(name, otherwise);
    }

    int number(String name) {
        return Integer.parseInt(options.get(name));
    }

    List<String> topics() {
        return List.of(get("topics").split(","));
    }

    /** The i-th record: some have no key, some no value. */
    ProducerRecord<byte[], byte[]> record(int i) {
        String prefix = get("prefix");
        byte[] key = i % 50 == 48 ? null : bytes(prefix + "-key-" + i);
        byte[] value = i % 50 == 49 ? null : bytes(prefix + "-value-" + i + "-" + "chronik ".repeat(16));
        long timestamp = Long.parseLong(get("first-timestamp")) + i;
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(get("topic"), null, timestamp, key, value);
        record.headers().add("origin", bytes(prefix)).add("number", bytes(String.valueOf(i)));
        return record;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    /** One object of output, of names and values in turn. */
    static synchronized void emit(Object... fields) {
        Map<String, Object> object = new LinkedHashMap<>();
        for (int i = 0; i < fields.length; i += 2) {
            object.put((String) fields[i], fields[i + 1]);
        }
        try {
            System.out.println(JSON.writeValueAsString(object));
            System.out.flush();
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    static void emit(ConsumerRecord<byte[], byte[]> r) {
        List<List<String>> headers = new ArrayList<>();
        r.headers().forEach(h -> headers.add(List.of(h.key(), text(h.value()))));
        emit("event", "record", "topic", r.topic(), "partition", r.partition(), "offset", r.offset(), "timestamp",
            r.timestamp(), "key", text(r.key()), "value", text(r.value()), "headers", headers);
    }

    static void emit(String event, Collection<TopicPartition> partitions) {
        emit("event", event, "partitions", partitions.stream()
            .sorted((a, b) -> a.topic().equals(b.topic()) ? a.partition() - b.partition() : a.topic().compareTo(b.topic()))
            .map(p -> List.of(p.topic(), p.partition()))
            .toList());
    }

    /** Turns true when standard input says "leave", or ends. */
    static Callable<Boolean> leave() {
        Thread reader = new Thread(() -> {
            try (BufferedReader lines = new BufferedReader(new InputStreamReader(System.in))) {
                for (String line = lines.readLine(); line != null && !line.trim().equals("leave"); ) {
                    line = lines.readLine();
                }
            } catch (Exception e) {
                // Standard input is gone: nobody can say "leave" any more.
            }
        });
        reader.setDaemon(true);
        reader.start();
        return () -> !reader.isAlive();
    }

    /** Waits for what admin calls promise only eventually, and says whether it came. */
    static boolean eventually(Callable<Boolean> condition) throws Exception {
        for (long end = System.currentTimeMillis() + PATIENCE_MS; System.currentTimeMillis() < end; Thread.sleep(50)) {
            if (condition.call()) {
                return true;
            }
        }
        return false;
    }
}
