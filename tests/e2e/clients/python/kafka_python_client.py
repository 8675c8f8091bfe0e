"""kafka-python: no librdkafka in it. Commands: see story.py."""

import story
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError
from story import emit

ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}


def produce(o):
    producer = KafkaProducer(
        bootstrap_servers=o["bootstrap"],
        compression_type=None if o["codec"] == "none" else o["codec"],
        enable_idempotence=o.get("idempotent") == "true",
        linger_ms=20,
    )
    sent = []
    for i in range(int(o["count"])):
        key, value, headers, timestamp = story.record(o, i)
        sent.append(producer.send(o["topic"], key=key, value=value, headers=headers, timestamp_ms=timestamp))
    for future in sent:
        future.get(timeout=60)
    producer.close()
    emit(event="produced", count=len(sent))


def show(where, topic, m):
    where(topic, m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)


def consume(o):
    consumer = KafkaConsumer(bootstrap_servers=o["bootstrap"], auto_offset_reset="earliest", enable_auto_commit=False)
    topics = o["topics"].split(",")
    consumer.assign([TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t)])
    count, within = 0, story.deadline()
    while count < int(o["count"]) and within():
        for at, messages in consumer.poll(timeout_ms=500).items():
            for message in messages:
                show(story.emit_record, at.topic, message)
                count += 1
    consumer.close()
    emit(event="end", count=count)


def group(o):
    consumer = KafkaConsumer(
        bootstrap_servers=o["bootstrap"],
        group_id=o["group"],
        group_instance_id=o.get("instance"),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=300,
        max_poll_records=5000,
        partition_assignment_strategy=[ASSIGNORS[o.get("strategy", "range")]],
    )

    class Told(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned):
            story.emit_partitions("assigned", consumer.assignment())

        def on_partitions_revoked(self, revoked):
            story.emit_partitions("revoked", revoked)

    consumer.subscribe(o["topics"].split(","), listener=Told())
    orders, sink = story.Orders(), story.Sink(o.get("out"))
    while not orders.leave():
        # Long enough for a rebalance to fit in: where a poll ends while a member joins, this client now and then forgets what
        # the group has given it, and sits there without partitions or heartbeats.
        for at, messages in consumer.poll(timeout_ms=2000).items():
            for message in messages:
                show(sink.record, at.topic, message)
        sink.flush()
        try:
            consumer.commit()
        except KafkaError as e:
            emit(event="warning", text=repr(e))
    consumer.close()
    emit(event="left")


def commit(o):
    consumer = KafkaConsumer(bootstrap_servers=o["bootstrap"], group_id=o["group"], enable_auto_commit=False)
    at = TopicPartition(o["topic"], int(o["partition"]))
    consumer.assign([at])
    consumer.commit({at: OffsetAndMetadata(int(o["offset"]), o.get("metadata", ""), -1)})
    consumer.close(autocommit=False)
    emit(event="committed", offset=int(o["offset"]), metadata=o.get("metadata", ""))


def committed(o):
    consumer = KafkaConsumer(bootstrap_servers=o["bootstrap"], group_id=o["group"], enable_auto_commit=False)
    at = consumer.committed(TopicPartition(o["topic"], int(o["partition"])), metadata=True)
    consumer.close()
    emit(event="committed", offset=-1001 if at is None else at.offset, metadata="" if at is None else at.metadata)


def code(work):
    """The error code that the call ends with; 0 if it ends well."""
    try:
        work()
        return 0
    except KafkaError as e:
        return e.errno


def admin(o):
    client = KafkaAdminClient(bootstrap_servers=o["bootstrap"])
    topic, group_id = o["prefix"] + "-topic", o["prefix"] + "-group"
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)

    def config(name):
        return client.describe_configs([resource], config_filter="all")["topic"][topic][name]

    def create(name, **settings):
        return code(lambda: client.create_topics({name: settings}))

    cluster = client.describe_cluster()
    emit(step="cluster", brokers=len(cluster["brokers"]), controller=cluster["controller_id"] >= 0, id=bool(cluster["cluster_id"]))
    settings = {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "3600000"}}
    emit(step="create_topic", error=create(topic, **settings))
    emit(step="create_topic_again", error=create(topic, **settings))
    emit(step="create_bad_config", error=create(topic + "-bad", configs={"retention.ms": "soon"}))
    emit(step="create_bad_name", error=create("not/a/topic"))
    emit(step="list_topics", has=story.eventually(lambda: topic in client.list_topics()))
    (described,) = client.describe_topics([topic])
    emit(step="describe_topic", partitions=len(described["partitions"]), led=all(p["leader_id"] >= 0 for p in described["partitions"]))
    emit(step="create_partitions", error=code(lambda: client.create_partitions({topic: 5})))
    emit(step="partitions_created", has=story.eventually(lambda: len(client.describe_topics([topic])[0]["partitions"]) == 5))
    by_page = client.describe_topic_partitions([topic])["topics"]
    emit(step="describe_topic_partitions", partitions=len(by_page[0]["partitions"]))
    described = config("retention.ms")
    emit(step="describe_configs", value=described["value"], default=described["config_source"] == "DEFAULT_CONFIG")
    change = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})
    emit(step="alter_configs", error=code(lambda: client.alter_configs([change])))
    emit(step="configs_altered", has=story.eventually(lambda: config("retention.ms")["value"] == "7200000"))
    change = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "1800000"})
    emit(step="alter_configs_whole", error=code(lambda: client.alter_configs([change], incremental=False)))
    emit(step="configs_altered_whole", has=story.eventually(lambda: config("retention.ms")["value"] == "1800000"))
    node = str(cluster["brokers"][0]["broker_id"])
    brokers = client.describe_configs([ConfigResource(ConfigResourceType.BROKER, node)], config_filter="all")
    emit(step="describe_broker_configs", has="log.retention.ms" in brokers["broker"][node])

    producer = KafkaProducer(bootstrap_servers=o["bootstrap"])
    for i in range(10):
        producer.send(topic, b"%d" % i, partition=0)
    producer.close()
    zero = TopicPartition(topic, 0)

    def offset(spec):
        return client.list_partition_offsets({zero: spec})[zero].offset

    emit(step="list_offsets", earliest=offset(OffsetSpec.EARLIEST), latest=offset(OffsetSpec.LATEST))
    emit(step="delete_records", low=client.delete_records({zero: 4})[zero]["low_watermark"])
    emit(step="records_deleted", earliest=offset(OffsetSpec.EARLIEST), latest=offset(OffsetSpec.LATEST))

    (altered,) = client.alter_group_offsets(group_id, {zero: OffsetAndMetadata(7, "noted", -1)}).values()
    emit(step="alter_group_offsets", error=altered.errno)
    listed = lambda: [g["group_id"] for g in client.list_groups()]
    emit(step="list_groups", has=group_id in listed())
    described = client.describe_groups([group_id])[group_id]
    emit(step="describe_group", state=described["group_state"], members=len(described["members"]))
    at = client.list_group_offsets({group_id: None})[group_id][zero]
    emit(step="group_offsets", offset=at.offset)
    (deleted,) = client.delete_group_offsets(group_id, [zero]).values()
    emit(step="delete_group_offsets", error=deleted.errno)
    emit(step="delete_group", error=code(lambda: client.delete_groups([group_id])))
    emit(step="group_deleted", has=group_id in listed())
    emit(step="describe_log_dirs", has=topic in str(client.describe_log_dirs()))
    emit(step="describe_features", has="metadata.version" in str(client.describe_features()))
    emit(step="describe_quorum", error=code(client.describe_metadata_quorum))
    emit(step="list_config_resources", error=code(client.list_config_resources))
    emit(step="list_reassignments", error=code(client.list_partition_reassignments))
    emit(step="describe_producers", error=code(lambda: client.describe_producers([zero])))
    emit(step="delete_topic", error=code(lambda: client.delete_topics([topic])))
    emit(step="topic_deleted", has=story.eventually(lambda: topic not in client.list_topics()))
    client.close()


if __name__ == "__main__":
    command, options = story.arguments()
    {f.__name__: f for f in (produce, consume, group, commit, committed, admin)}[command](options)
