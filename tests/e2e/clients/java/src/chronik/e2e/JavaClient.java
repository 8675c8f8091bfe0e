package chronik.e2e;

import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.FileOutputStream;
import java.io.FileReader;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The official Java client. Commands: see Story. */
public final class JavaClient {
    public static void main(String[] words) throws Exception {
        Story story = new Story(words);
        switch (story.command) {
            case "produce" -> produce(story);
            case "consume" -> consume(story);
            case "group" -> group(story);
            case "lines" -> lines(story);
            case "sequence" -> sequence(story);
            case "commit" -> commit(story);
            case "committed" -> committed(story);
            case "admin" -> JavaAdmin.run(story);
            default -> throw new IllegalArgumentException(story.command);
        }
        System.exit(0);
    }

    private static KafkaProducer<byte[], byte[]> producer(Story story) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", story.get("bootstrap"));
        settings.put("compression.type", story.get("codec", "none"));
        settings.put("enable.idempotence", story.get("idempotent", "false"));
        settings.put("linger.ms", 20);
        // A broker that is killed and restarted is waited for.
        settings.put("delivery.timeout.ms", 600_000);
        settings.put("request.timeout.ms", Integer.parseInt(story.get("request-timeout-ms", "30000")));
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Story story, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", story.get("bootstrap"));
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", false);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void produce(Story story) throws Exception {
        List<Future<?>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = producer(story)) {
            for (int i = 0; i < story.number("count"); i++) {
                sent.add(producer.send(story.record(i)));
            }
            for (Future<?> one : sent) {
                one.get();
            }
        }
        Story.emit("event", "produced", "count", sent.size());
    }

    private static void consume(Story story) {
        int count = 0;
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(story, Map.of())) {
            List<TopicPartition> all = new ArrayList<>();
            for (String topic : story.topics()) {
                consumer.partitionsFor(topic).forEach(p -> all.add(new TopicPartition(topic, p.partition())));
            }
            consumer.assign(all);
            long end = System.currentTimeMillis() + Story.PATIENCE_MS;
            while (count < story.number("count") && System.currentTimeMillis() < end) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    Story.emit(record);
                    count++;
                }
            }
        }
        Story.emit("event", "end", "count", count);
    }

    private static void group(Story story) throws Exception {
        Map<String, Object> settings = new HashMap<>(Map.of(
            "group.id", story.get("group"), "session.timeout.ms", 6000, "heartbeat.interval.ms", 300, "max.poll.records", 5000));
        settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer." + switch (story.get("strategy", "range")) {
            case "cooperative-sticky" -> "CooperativeStickyAssignor";
            case "roundrobin" -> "RoundRobinAssignor";
            case "sticky" -> "StickyAssignor";
            default -> "RangeAssignor";
        });
        if (story.get("instance") != null) {
            settings.put("group.instance.id", story.get("instance"));
        }
        Callable<Boolean> leave = Story.leave();
        String out = story.get("out");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(story, settings);
            OutputStream file = out == null ? null : new BufferedOutputStream(new FileOutputStream(out, true), 1 << 20)) {
            consumer.subscribe(story.topics(), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> added) {
                    Story.emit("assigned", consumer.assignment());
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    Story.emit("revoked", revoked);
                }
            });
            while (!leave.call()) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    if (file == null) {
                        Story.emit(r);
                    } else {
                        file.write(Story.bytes(r.partition() + "\t" + r.offset() + "\t"));
                        file.write(r.value() == null ? new byte[0] : r.value());
                        file.write('\n');
                    }
                }
                if (file != null) {
                    file.flush();
                }
                try {
                    consumer.commitSync(Duration.ofSeconds(10));
                } catch (KafkaException e) {
                    Story.emit("event", "warning", "text", e.toString());
                }
            }
        }
        Story.emit("event", "left");
    }

    private static void lines(Story story) throws Exception {
        AtomicLong acked = new AtomicLong();
        AtomicLong refused = new AtomicLong();
        try (KafkaProducer<byte[], byte[]> producer = producer(story);
            BufferedReader lines = new BufferedReader(new FileReader(story.get("file"), StandardCharsets.ISO_8859_1), 1 << 20)) {
            // ISO 8859-1 is every byte as it is.
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                byte[] value = line.getBytes(StandardCharsets.ISO_8859_1);
                producer.send(new ProducerRecord<>(story.get("topic"), value), (at, error) -> {
                    if (error != null) {
                        refused.incrementAndGet();
                    } else if (acked.incrementAndGet() % 50_000 == 0) {
                        Story.emit("event", "progress", "acked", acked.get());
                    }
                });
            }
        }
        Story.emit("event", "produced", "count", acked.get(), "refused", refused.get());
    }

    private static void sequence(Story story) throws Exception {
        Callable<Boolean> leave = Story.leave();
        int keys = story.number("keys");
        int partitions = story.number("partitions");
        String name = story.get("name");
        try (KafkaProducer<byte[], byte[]> producer = producer(story)) {
            for (int value = 0; !leave.call(); value++) {
                int number = value;
                int key = value % keys;
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
                    story.get("topic"), key % partitions, Story.bytes(name + "-" + key), Story.bytes(name + ":" + value));
                producer.send(record, (at, error) -> {
                    if (error != null) {
                        Story.emit("event", "refused", "value", number, "why", error.toString());
                    } else {
                        Story.emit("event", "acknowledged", "value", number, "partition", at.partition(), "offset", at.offset());
                    }
                });
                if (value % 10 == 9) {
                    Thread.sleep(20);
                }
            }
            producer.flush();
        }
        Story.emit("event", "left");
    }

    private static void commit(Story story) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(story, Map.of("group.id", story.get("group")))) {
            TopicPartition at = new TopicPartition(story.get("topic"), story.number("partition"));
            consumer.commitSync(Map.of(at, new OffsetAndMetadata(story.number("offset"), story.get("metadata", ""))));
        }
        Story.emit("event", "committed", "offset", story.number("offset"), "metadata", story.get("metadata", ""));
    }

    private static void committed(Story story) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(story, Map.of("group.id", story.get("group")))) {
            TopicPartition at = new TopicPartition(story.get("topic"), story.number("partition"));
            OffsetAndMetadata found = consumer.committed(Set.of(at)).get(at);
            Story.emit("event", "committed", "offset", found == null ? -1 : found.offset(), "metadata",
                found == null ? "" : found.metadata());
        }
    }
}
