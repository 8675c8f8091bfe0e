"""aiokafka: asyncio, and the oldest versions that any current client speaks. Commands: see story.py."""

import asyncio

import story
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from story import emit

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}


async def produce(o):
    producer = AIOKafkaProducer(
        bootstrap_servers=o["bootstrap"],
        compression_type=None if o["codec"] == "none" else o["codec"],
        enable_idempotence=o.get("idempotent") == "true",
        linger_ms=20,
    )
    await producer.start()
    sent = []
    for i in range(int(o["count"])):
        key, value, headers, timestamp = story.record(o, i)
        sent.append(await producer.send(o["topic"], key=key, value=value, headers=headers, timestamp_ms=timestamp))
    await asyncio.gather(*sent)
    await producer.stop()
    emit(event="produced", count=len(sent))


def show(where, topic, m):
    where(topic, m.partition, m.offset, m.timestamp, m.key, m.value, m.headers)


async def consume(o):
    topics = o["topics"].split(",")
    consumer = AIOKafkaConsumer(bootstrap_servers=o["bootstrap"], auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    metadata = await consumer._client.fetch_all_metadata()
    consumer.assign([TopicPartition(t, p) for t in topics for p in metadata.partitions_for_topic(t)])
    count, within = 0, story.deadline()
    while count < int(o["count"]) and within():
        for at, messages in (await consumer.getmany(timeout_ms=500)).items():
            for message in messages:
                show(story.emit_record, at.topic, message)
                count += 1
    await consumer.stop()
    emit(event="end", count=count)


async def group(o):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=o["bootstrap"],
        group_id=o["group"],
        group_instance_id=o.get("instance"),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=300,
        partition_assignment_strategy=[ASSIGNORS[o.get("strategy", "range")]],
    )

    class Told(ConsumerRebalanceListener):
        async def on_partitions_assigned(self, assigned):
            story.emit_partitions("assigned", assigned)

        async def on_partitions_revoked(self, revoked):
            story.emit_partitions("revoked", revoked)

    consumer.subscribe(o["topics"].split(","), listener=Told())
    await consumer.start()
    orders, sink = story.Orders(), story.Sink(o.get("out"))
    while not orders.leave():
        for at, messages in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
            for message in messages:
                show(sink.record, at.topic, message)
        sink.flush()
        try:
            await consumer.commit()
        except KafkaError as e:
            emit(event="warning", text=repr(e))
    await consumer.stop()
    emit(event="left")


async def commit(o):
    consumer = AIOKafkaConsumer(bootstrap_servers=o["bootstrap"], group_id=o["group"], enable_auto_commit=False)
    await consumer.start()
    at = TopicPartition(o["topic"], int(o["partition"]))
    consumer.assign([at])
    await consumer.commit({at: OffsetAndMetadata(int(o["offset"]), o.get("metadata", ""))})
    await consumer.stop()
    emit(event="committed", offset=int(o["offset"]), metadata=o.get("metadata", ""))


async def committed(o):
    client = AIOKafkaAdminClient(bootstrap_servers=o["bootstrap"])
    await client.start()
    at = TopicPartition(o["topic"], int(o["partition"]))
    found = (await client.list_consumer_group_offsets(o["group"], partitions=[at]))[at]
    await client.close()
    emit(event="committed", offset=found.offset, metadata=found.metadata)


async def code(work):
    """The error code that the call ends with; 0 if it ends well. Some answers come back whole, with codes inside."""
    try:
        answer = await work
        for name in ("topic_errors", "topic_error_codes"):
            for entry in getattr(answer, name, []):
                return entry[1]
        return 0
    except KafkaError as e:
        return e.errno


async def admin(o):
    client = AIOKafkaAdminClient(bootstrap_servers=o["bootstrap"])
    await client.start()
    topic, group_id = o["prefix"] + "-topic", o["prefix"] + "-group"

    async def until(condition):
        within = story.deadline()
        while within():
            if await condition():
                return True
            await asyncio.sleep(0.05)
        return False

    async def config():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": None})
        (answer,) = await client.describe_configs([resource])
        ((_, _, _, _, entries),) = answer.resources
        return entries[0][1]

    async def described():
        (answer,) = await client.describe_topics([topic])
        return answer["partitions"]

    cluster = await client.describe_cluster()
    emit(step="cluster", brokers=len(cluster["brokers"]), controller=cluster["controller_id"] >= 0, id=bool(cluster["cluster_id"]))
    new = NewTopic(topic, 3, 1, topic_configs={"retention.ms": "3600000"})
    emit(step="create_topic", error=await code(client.create_topics([new])))
    emit(step="create_topic_again", error=await code(client.create_topics([new])))
    bad = NewTopic(topic + "-bad", 1, 1, topic_configs={"retention.ms": "soon"})
    emit(step="create_bad_config", error=await code(client.create_topics([bad])))
    emit(step="create_bad_name", error=await code(client.create_topics([NewTopic("not/a/topic", 1, 1)])))

    async def is_listed():
        return topic in await client.list_topics()

    emit(step="list_topics", has=await until(is_listed))
    partitions = await described()
    emit(step="describe_topic", partitions=len(partitions), led=all(p["leader"] >= 0 for p in partitions))
    emit(step="create_partitions", error=await code(client.create_partitions({topic: NewPartitions(5)})))

    async def has_five():
        return len(await described()) == 5

    emit(step="partitions_created", has=await until(has_five))
    emit(step="describe_configs", value=await config())
    change = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})
    emit(step="alter_configs", error=await code(client.alter_configs([change])))

    async def is_altered():
        return await config() == "7200000"

    emit(step="configs_altered", has=await until(is_altered))
    node = str(cluster["brokers"][0]["node_id"])
    (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.BROKER, node)])
    emit(step="describe_broker_configs", has=any(entry[0] == "log.retention.ms" for entry in answer.resources[0][4]))

    producer = AIOKafkaProducer(bootstrap_servers=o["bootstrap"])
    await producer.start()
    for i in range(10):
        await producer.send_and_wait(topic, b"%d" % i, partition=0)
    await producer.stop()
    zero = TopicPartition(topic, 0)

    async def offsets():
        consumer = AIOKafkaConsumer(bootstrap_servers=o["bootstrap"])
        await consumer.start()
        try:
            earliest = (await consumer.beginning_offsets([zero]))[zero]
            return {"earliest": earliest, "latest": (await consumer.end_offsets([zero]))[zero]}
        finally:
            await consumer.stop()

    emit(step="list_offsets", **await offsets())
    emit(step="delete_records", low=(await client.delete_records({zero: RecordsToDelete(before_offset=4)}))[zero])
    emit(step="records_deleted", **await offsets())

    await commit(o | {"group": group_id, "topic": topic, "partition": "0", "offset": "7"})
    emit(step="list_groups", has=group_id in [g[0] for g in await client.list_consumer_groups()])
    (answer,) = await client.describe_consumer_groups([group_id])
    ((_, _, state, _, _, members, *_),) = answer.groups
    emit(step="describe_group", state=state, members=len(members))
    emit(step="group_offsets", offset=(await client.list_consumer_group_offsets(group_id))[zero].offset)
    emit(step="delete_topic", error=await code(client.delete_topics([topic])))

    async def is_gone():
        return not await is_listed()

    emit(step="topic_deleted", has=await until(is_gone))
    await client.close()


if __name__ == "__main__":
    command, options = story.arguments()
    asyncio.run({f.__name__: f for f in (produce, consume, group, commit, committed, admin)}[command](options))
