"""confluent-kafka: librdkafka under Python. Commands: see story.py."""

import story
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka import OFFSET_BEGINNING, TopicCollection
from confluent_kafka import admin as a
from story import emit


def produce(o):
    producer = Producer(
        {
            "bootstrap.servers": o["bootstrap"],
            "compression.type": o["codec"],
            "enable.idempotence": o.get("idempotent", "false"),
            "linger.ms": 20,
        }
    )
    failures = []
    for i in range(int(o["count"])):
        key, value, headers, timestamp = story.record(o, i)
        producer.produce(
            o["topic"],
            key=key,
            value=value,
            headers=headers,
            timestamp=timestamp,
            on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        )
    left = producer.flush(story.PATIENCE_S)
    emit(event="produced", count=int(o["count"]) - left - len(failures), failures=failures)


def consume(o):
    consumer = Consumer({"bootstrap.servers": o["bootstrap"], "group.id": "unused", "enable.auto.commit": False})
    topics = o["topics"].split(",")
    known = consumer.list_topics(timeout=30).topics
    consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t in topics for p in known[t].partitions])
    count, within = 0, story.deadline()
    while count < int(o["count"]) and within():
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        show(story.emit_record, message)
        count += 1
    consumer.close()
    emit(event="end", count=count)


def show(where, m):
    where(m.topic(), m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers())


def group(o):
    settings = {
        "bootstrap.servers": o["bootstrap"],
        "group.id": o["group"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 300,
        "partition.assignment.strategy": o.get("strategy", "range"),
    }
    if "instance" in o:
        settings["group.instance.id"] = o["instance"]
    consumer = Consumer(settings)
    held = set()
    cooperative = o.get("strategy") == "cooperative-sticky"

    def assigned(c, partitions):
        named = {(p.topic, p.partition) for p in partitions}
        if cooperative:
            c.incremental_assign(partitions)
        else:
            held.clear()
            c.assign(partitions)
        held.update(named)
        story.emit_partitions("assigned", held)

    def revoked(c, partitions):
        held.difference_update({(p.topic, p.partition) for p in partitions})
        if cooperative:
            c.incremental_unassign(partitions)
        else:
            c.unassign()
        story.emit_partitions("revoked", [(p.topic, p.partition) for p in partitions])

    consumer.subscribe(o["topics"].split(","), on_assign=assigned, on_revoke=revoked)
    orders, sink = story.Orders(), story.Sink(o.get("out"))
    while not orders.leave():
        for message in consumer.consume(5000, 0.2):
            if message.error():
                emit(event="warning", text=str(message.error()))
            else:
                show(sink.record, message)
        sink.flush()
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as e:
            # _NO_OFFSET: nothing new. Others: the group moves or the coordinator is away; the next commit covers it.
            if e.args[0].name() != "_NO_OFFSET":
                emit(event="warning", text=str(e))
    consumer.close()
    emit(event="left")


def commit(o):
    consumer = Consumer({"bootstrap.servers": o["bootstrap"], "group.id": o["group"], "enable.auto.commit": False})
    at = TopicPartition(o["topic"], int(o["partition"]), int(o["offset"]), o.get("metadata", ""))
    consumer.commit(offsets=[at], asynchronous=False)
    consumer.close()
    emit(event="committed", offset=int(o["offset"]), metadata=o.get("metadata", ""))


def committed(o):
    consumer = Consumer({"bootstrap.servers": o["bootstrap"], "group.id": o["group"]})
    (at,) = consumer.committed([TopicPartition(o["topic"], int(o["partition"]))], timeout=30)
    consumer.close()
    # No metadata: this binding counts a byte too many, so it commits "text\0" and reads past the end of what it gets.
    emit(event="committed", offset=at.offset)


def lines(o):
    producer = Producer(
        {
            "bootstrap.servers": o["bootstrap"],
            "compression.type": o["codec"],
            "enable.idempotence": True,
            "linger.ms": 20,
            "queue.buffering.max.messages": 200_000,
        }
    )
    acked, failures = [0], []

    def delivered(error, _):
        if error:
            failures.append(str(error))
            return
        acked[0] += 1
        if acked[0] % 50_000 == 0:
            emit(event="progress", acked=acked[0])

    with open(o["file"], "rb") as source:
        for line in source:
            while True:
                try:
                    producer.produce(o["topic"], value=line.rstrip(b"\n"), on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
    producer.flush(600)
    emit(event="produced", count=acked[0], failures=failures[:3])


def code(work):
    """The error code that the call ends with; 0 if it ends well."""
    try:
        work()
        return 0
    except KafkaException as e:
        return e.args[0].code()


def admin(o):
    client = a.AdminClient({"bootstrap.servers": o["bootstrap"]})
    topic, group_id = o["prefix"] + "-topic", o["prefix"] + "-group"

    def only(futures):
        (future,) = futures.values()
        return future.result(60)

    def config(name):
        resource = a.ConfigResource(a.ConfigResource.Type.TOPIC, topic)
        return only(client.describe_configs([resource]))[name]

    cluster = client.describe_cluster(request_timeout=30).result(60)
    emit(step="cluster", brokers=len(cluster.nodes), controller=cluster.controller is not None, id=bool(cluster.cluster_id))
    new = a.NewTopic(topic, num_partitions=3, replication_factor=1, config={"retention.ms": "3600000"})
    emit(step="create_topic", error=code(lambda: only(client.create_topics([new]))))
    emit(step="create_topic_again", error=code(lambda: only(client.create_topics([new]))))
    bad = a.NewTopic(topic + "-bad", num_partitions=1, replication_factor=1, config={"retention.ms": "soon"})
    emit(step="create_bad_config", error=code(lambda: only(client.create_topics([bad]))))
    bad = a.NewTopic("not/a/topic", num_partitions=1, replication_factor=1)
    emit(step="create_bad_name", error=code(lambda: only(client.create_topics([bad]))))
    emit(step="list_topics", has=story.eventually(lambda: topic in client.list_topics(timeout=30).topics))
    described = only(client.describe_topics(TopicCollection([topic]), include_authorized_operations=True))
    emit(step="describe_topic", partitions=len(described.partitions), led=all(p.leader is not None for p in described.partitions))
    unknown = client.describe_topics(TopicCollection([topic + "-unknown"]))
    emit(step="describe_unknown_topic", error=code(lambda: only(unknown)))
    emit(step="create_partitions", error=code(lambda: only(client.create_partitions([a.NewPartitions(topic, 5)]))))
    emit(step="partitions_created", has=story.eventually(lambda: len(client.list_topics(topic, timeout=30).topics[topic].partitions) == 5))
    emit(step="describe_configs", value=config("retention.ms").value, default=config("retention.ms").is_default)
    entry = a.ConfigEntry("retention.ms", "7200000", incremental_operation=a.AlterConfigOpType.SET)
    resource = a.ConfigResource(a.ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    emit(step="alter_configs", error=code(lambda: only(client.incremental_alter_configs([resource]))))
    emit(step="configs_altered", has=story.eventually(lambda: config("retention.ms").value == "7200000"))
    cluster_configs = only(client.describe_configs([a.ConfigResource(a.ConfigResource.Type.BROKER, str(cluster.nodes[0].id))]))
    emit(step="describe_broker_configs", has="log.retention.ms" in cluster_configs)

    producer = Producer({"bootstrap.servers": o["bootstrap"]})
    for i in range(10):
        producer.produce(topic, value=b"%d" % i, partition=0)
    producer.flush(30)
    zero = TopicPartition(topic, 0)

    def offset(spec):
        return only(client.list_offsets({zero: spec})).offset

    emit(step="list_offsets", earliest=offset(a.OffsetSpec.earliest()), latest=offset(a.OffsetSpec.latest()))
    emit(step="delete_records", low=only(client.delete_records([TopicPartition(topic, 0, 4)])).low_watermark)
    emit(step="records_deleted", earliest=offset(a.OffsetSpec.earliest()), latest=offset(a.OffsetSpec.latest()))

    at = ConsumerGroupTopicPartitions(group_id, [TopicPartition(topic, 0, 7)])
    emit(step="alter_group_offsets", error=code(lambda: only(client.alter_consumer_group_offsets([at]))))
    listed = lambda: [g.group_id for g in client.list_consumer_groups(request_timeout=30).result(60).valid]
    emit(step="list_groups", has=group_id in listed())
    group = only(client.describe_consumer_groups([group_id], request_timeout=30))
    emit(step="describe_group", state=group.state.name.title(), members=len(group.members))
    offsets = only(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group_id)]))
    emit(step="group_offsets", offset=offsets.topic_partitions[0].offset)
    emit(step="delete_group", error=code(lambda: only(client.delete_consumer_groups([group_id], request_timeout=30))))
    emit(step="group_deleted", has=group_id in listed())
    emit(step="delete_topic", error=code(lambda: only(client.delete_topics([topic]))))
    emit(step="topic_deleted", has=story.eventually(lambda: topic not in client.list_topics(timeout=30).topics))


if __name__ == "__main__":
    command, options = story.arguments()
    {f.__name__: f for f in (produce, consume, group, commit, committed, lines, admin)}[command](options)
