// kafkajs: the client of the Node world, whose versions stop in 2020. Commands: see ../python/story.py, which all clients follow.
// It has no codec but gzip of its own; the others are plugged in here from packages that need no compiler to install.

const fs = require('fs')
const readline = require('readline')
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, AssignerProtocol, PartitionAssigners, logLevel } = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const fzstd = require('fzstd')
const zstd = require('@bokuweb/zstd-wasm')

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4.compressFrame(encoder.buffer),
  decompress: async buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(fzstd.decompress(buffer)),
})
const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

const [command, ...words] = process.argv.slice(2)
const o = {}
for (let i = 0; i < words.length; i += 2) o[words[i].slice(2)] = words[i + 1]

const emit = fields => fs.writeSync(1, JSON.stringify(fields) + '\n')
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [o.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 20 } })
const text = value => (value === null || value === undefined ? null : value.toString())

function record(i) {
  return {
    key: i % 50 === 48 ? null : `${o.prefix}-key-${i}`,
    value: i % 50 === 49 ? null : `${o.prefix}-value-${i}-` + 'chronik '.repeat(16),
    headers: { origin: o.prefix, number: String(i) },
    timestamp: String(Number(o['first-timestamp']) + i),
  }
}

function show(topic, partition, message) {
  const headers = Object.entries(message.headers || {}).map(([name, held]) => [name, text(held)])
  emit({
    event: 'record',
    topic,
    partition,
    offset: Number(message.offset),
    timestamp: Number(message.timestamp),
    key: text(message.key),
    value: text(message.value),
    headers,
  })
}

async function produce() {
  const producer = kafka.producer({ idempotent: o.idempotent === 'true', allowAutoTopicCreation: true })
  await producer.connect()
  const messages = Array.from({ length: Number(o.count) }, (_, i) => record(i))
  for (let i = 0; i < messages.length; i += 50) {
    await producer.send({ topic: o.topic, compression: CODECS[o.codec], acks: -1, messages: messages.slice(i, i + 50) })
  }
  await producer.disconnect()
  emit({ event: 'produced', count: messages.length })
}

// kafkajs reads in groups only, so this makes one of its own and deletes it.
async function consume() {
  const groupId = `kafkajs-consume-${process.pid}-${Date.now()}`
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10000, heartbeatInterval: 500 })
  await consumer.connect()
  await consumer.subscribe({ topics: o.topics.split(','), fromBeginning: true })
  let count = 0
  const all = new Promise(resolve => {
    setTimeout(resolve, 120000).unref()
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ topic, partition, message }) => {
        show(topic, partition, message)
        count += 1
        if (count >= Number(o.count)) resolve()
      },
    })
  })
  await all
  await consumer.disconnect()
  emit({ event: 'end', count })
}

async function group() {
  const consumer = kafka.consumer({
    groupId: o.group,
    sessionTimeout: 6000,
    heartbeatInterval: 300,
    rebalanceTimeout: 20000,
    maxWaitTimeInMs: 200,
    partitionAssigners: [o.strategy === 'range' ? range : PartitionAssigners.roundRobin],
  })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    const held = Object.entries(payload.memberAssignment).flatMap(([topic, partitions]) => partitions.map(p => [topic, p]))
    emit({ event: 'assigned', partitions: held.sort((a, b) => (a[0] === b[0] ? a[1] - b[1] : a[0] < b[0] ? -1 : 1)) })
  })
  await consumer.connect()
  await consumer.subscribe({ topics: o.topics.split(','), fromBeginning: true })
  await consumer.run({
    eachBatchAutoResolve: true,
    autoCommitThreshold: 1,
    eachBatch: async ({ batch, heartbeat }) => {
      for (const message of batch.messages) {
        if (o.out) fs.appendFileSync(o.out, `${batch.partition}\t${message.offset}\t${text(message.value) ?? ''}\n`)
        else show(batch.topic, batch.partition, message)
      }
      await heartbeat()
    },
  })
  for await (const line of readline.createInterface({ input: process.stdin })) if (line.trim() === 'leave') break
  await consumer.disconnect()
  emit({ event: 'left' })
}

// Kafka's range assignor, so that kafkajs can share a group with clients in other languages.
const range = ({ cluster }) => ({
  name: 'range',
  version: 0,
  protocol: ({ topics }) => ({
    name: 'range',
    metadata: AssignerProtocol.MemberMetadata.encode({ version: 0, topics, userData: Buffer.alloc(0) }),
  }),
  assign: async ({ members }) => {
    const wants = members.map(m => [m.memberId, AssignerProtocol.MemberMetadata.decode(m.memberMetadata).topics])
    const given = Object.fromEntries(wants.map(([id]) => [id, {}]))
    for (const topic of new Set(wants.flatMap(([, topics]) => topics))) {
      await cluster.addTargetTopic(topic)
      const partitions = cluster.findTopicPartitionMetadata(topic).map(p => p.partitionId).sort((a, b) => a - b)
      const takers = wants.filter(([, topics]) => topics.includes(topic)).map(([id]) => id).sort()
      takers.forEach((id, i) => {
        const from = Math.floor(partitions.length / takers.length) * i + Math.min(i, partitions.length % takers.length)
        const length = Math.floor(partitions.length / takers.length) + (i < partitions.length % takers.length ? 1 : 0)
        if (length > 0) given[id][topic] = partitions.slice(from, from + length)
      })
    }
    return Object.entries(given).map(([memberId, assignment]) => ({
      memberId,
      memberAssignment: AssignerProtocol.MemberAssignment.encode({ version: 0, assignment, userData: Buffer.alloc(0) }),
    }))
  },
})

async function withAdmin(work) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

// kafkajs commits from inside a running consumer or by its admin; it has no metadata in the latter, so by a consumer.
async function commit() {
  const consumer = kafka.consumer({ groupId: o.group })
  await consumer.connect()
  await consumer.subscribe({ topics: [o.topic] })
  const joined = new Promise(resolve => consumer.on(consumer.events.GROUP_JOIN, resolve))
  await consumer.run({ autoCommit: false, eachMessage: async () => {} })
  await joined
  await consumer.commitOffsets([{ topic: o.topic, partition: Number(o.partition), offset: o.offset, metadata: o.metadata }])
  await consumer.disconnect()
  emit({ event: 'committed', offset: Number(o.offset), metadata: o.metadata })
}

async function committed() {
  const [{ partitions }] = await withAdmin(admin => admin.fetchOffsets({ groupId: o.group, topics: [o.topic] }))
  const at = partitions.find(p => p.partition === Number(o.partition))
  emit({ event: 'committed', offset: Number(at.offset), metadata: at.metadata ?? '' })
}

async function code(work) {
  try {
    await work()
    return 0
  } catch (e) {
    const inner = (e.errors && e.errors[0]) || (e.groups && e.groups[0] && e.groups[0].error) || e
    return inner.code ?? String(inner)
  }
}

async function eventually(condition) {
  for (const end = Date.now() + 120000; Date.now() < end; await new Promise(r => setTimeout(r, 50))) if (await condition()) return true
  return false
}

const admin = () =>
  withAdmin(async admin => {
    const topic = `${o.prefix}-topic`
    const groupId = `${o.prefix}-group`
    const configs = async (type, name, configNames) =>
      (await admin.describeConfigs({ resources: [{ type, name, configNames }], includeSynonyms: true })).resources[0].configEntries
    const retention = async () => (await configs(ConfigResourceTypes.TOPIC, topic, ['retention.ms']))[0]
    const create = (topic, value) =>
      code(() => admin.createTopics({ topics: [{ topic, numPartitions: 3, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value }] }] }))
    const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions
    const isListed = async () => (await admin.listTopics()).includes(topic)
    const offsets = async () => {
      const [zero] = (await admin.fetchTopicOffsets(topic)).filter(p => p.partition === 0)
      return { earliest: Number(zero.low), latest: Number(zero.high) }
    }

    const cluster = await admin.describeCluster()
    emit({ step: 'cluster', brokers: cluster.brokers.length, controller: cluster.controller !== null, id: Boolean(cluster.clusterId) })
    emit({ step: 'create_topic', error: await create(topic, '3600000') })
    emit({ step: 'create_bad_config', error: await create(topic + '-bad', 'soon') })
    emit({ step: 'create_bad_name', error: await create('not/a/topic', '1') })
    emit({ step: 'list_topics', has: await eventually(isListed) })
    const described = await partitions()
    emit({ step: 'describe_topic', partitions: described.length, led: described.every(p => p.leader >= 0) })
    emit({ step: 'create_partitions', error: await code(() => admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })) })
    emit({ step: 'partitions_created', has: await eventually(async () => (await partitions()).length === 5) })
    const config = await retention()
    emit({ step: 'describe_configs', value: config.configValue, default: config.isDefault })
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '7200000' }] }]
    emit({ step: 'alter_configs', error: await code(() => admin.alterConfigs({ validateOnly: false, resources })) })
    emit({ step: 'configs_altered', has: await eventually(async () => (await retention()).configValue === '7200000') })
    const broker = await configs(ConfigResourceTypes.BROKER, String(cluster.brokers[0].nodeId), [])
    emit({ step: 'describe_broker_configs', has: broker.some(c => c.configName === 'log.retention.ms') })

    const producer = kafka.producer()
    await producer.connect()
    for (let i = 0; i < 10; i++) await producer.send({ topic, messages: [{ value: String(i), partition: 0 }] })
    await producer.disconnect()
    emit({ step: 'list_offsets', ...(await offsets()) })
    emit({ step: 'delete_records', error: await code(() => admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })) })
    emit({ step: 'records_deleted', ...(await offsets()) })

    const setOffsets = () => admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '7' }] })
    emit({ step: 'alter_group_offsets', error: await code(setOffsets) })
    const hasGroup = async () => (await admin.listGroups()).groups.some(g => g.groupId === groupId)
    emit({ step: 'list_groups', has: await hasGroup() })
    const [group] = (await admin.describeGroups([groupId])).groups
    emit({ step: 'describe_group', state: group.state, members: group.members.length })
    const [held] = await admin.fetchOffsets({ groupId, topics: [topic] })
    emit({ step: 'group_offsets', offset: Number(held.partitions.find(p => p.partition === 0).offset) })
    emit({ step: 'delete_group', error: await code(() => admin.deleteGroups([groupId])) })
    emit({ step: 'group_deleted', has: await hasGroup() })
    emit({ step: 'list_reassignments', error: await code(() => admin.listPartitionReassignments({})) })
    emit({ step: 'describe_acls', error: await code(() => admin.describeAcls({ resourceType: 1, resourcePatternType: 1, operation: 1, permissionType: 1 })) })
    emit({ step: 'delete_topic', error: await code(() => admin.deleteTopics({ topics: [topic] })) })
    emit({ step: 'topic_deleted', has: await eventually(async () => !(await isListed())) })
  })

zstd
  .init()
  .then({ produce, consume, group, commit, committed, admin }[command])
  .then(() => process.exit(0))
  .catch(e => {
    console.error(e)
    process.exit(1)
  })
