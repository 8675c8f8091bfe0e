// sarama: the older Go client, with its own mix of versions. Commands: see ../../python/story.py.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chronik/e2e/story"

	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.Return.Successes = true
	// Its default is acks=1, after which a record may still be on its way to the disk and not be visible yet.
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	return c
}

func hosts(o story.Options) []string { return []string{o["bootstrap"]} }

func read(m *sarama.ConsumerMessage) story.Read {
	headers := [][2]string{}
	for _, h := range m.Headers {
		headers = append(headers, [2]string{string(h.Key), string(h.Value)})
	}
	return story.Read{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, At: m.Timestamp, Key: m.Key, Value: m.Value, Headers: headers}
}

func produce(o story.Options) {
	c := config()
	c.Producer.Compression = codecs[o["codec"]]
	c.Producer.Flush.Frequency = 20 * time.Millisecond
	if o["idempotent"] == "true" {
		c.Producer.Idempotent = true
		c.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer(hosts(o), c)
	story.Must(err)
	messages := []*sarama.ProducerMessage{}
	for i := range o.Int("count") {
		key, value, headers, at := o.Record(i)
		message := &sarama.ProducerMessage{Topic: o["topic"], Timestamp: at}
		if key != nil {
			message.Key = sarama.ByteEncoder(key)
		}
		if value != nil {
			message.Value = sarama.ByteEncoder(value)
		}
		for _, h := range headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h[0]), Value: []byte(h[1])})
		}
		messages = append(messages, message)
	}
	story.Must(producer.SendMessages(messages))
	story.Must(producer.Close())
	story.Emit(story.F{"event": "produced", "count": len(messages)})
}

func consume(o story.Options) {
	consumer, err := sarama.NewConsumer(hosts(o), config())
	story.Must(err)
	all := make(chan *sarama.ConsumerMessage)
	for _, topic := range o.Topics() {
		partitions, err := consumer.Partitions(topic)
		story.Must(err)
		for _, p := range partitions {
			one, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
			story.Must(err)
			go func() {
				for m := range one.Messages() {
					all <- m
				}
			}()
		}
	}
	count, limit := 0, time.After(story.Patience)
	for count < o.Int("count") {
		select {
		case m := <-all:
			read(m).Emit()
			count++
		case <-limit:
			story.Must(errors.New("out of patience"))
		}
	}
	story.Emit(story.F{"event": "end", "count": count})
}

// member is one generation's view of the group.
type member struct {
	sink *story.Sink
	lock *sync.Mutex
}

func (member) Setup(s sarama.ConsumerGroupSession) error {
	held := map[string][]int32{}
	for topic, partitions := range s.Claims() {
		held[topic] = append([]int32{}, partitions...)
	}
	story.EmitPartitions("assigned", held)
	return nil
}

func (member) Cleanup(s sarama.ConsumerGroupSession) error {
	held := map[string][]int32{}
	for topic, partitions := range s.Claims() {
		held[topic] = append([]int32{}, partitions...)
	}
	story.EmitPartitions("revoked", held)
	return nil
}

func (m member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.lock.Lock()
			m.sink.Record(read(message))
			m.sink.Flush()
			m.lock.Unlock()
			s.MarkMessage(message, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func group(o story.Options) {
	c := config()
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	c.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	switch o["strategy"] {
	case "roundrobin":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRoundRobin()}
	case "sticky":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}
	}
	c.Consumer.Group.InstanceId = o["instance"]
	group, err := sarama.NewConsumerGroup(hosts(o), o["group"], c)
	story.Must(err)
	ctx, stop := context.WithCancel(context.Background())
	leave := story.Leave()
	go func() { <-leave; stop() }()
	me := member{o.Sink(), &sync.Mutex{}}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, o.Topics(), me); err != nil {
			story.Emit(story.F{"event": "warning", "text": err.Error()})
		}
	}
	story.Must(group.Close())
	story.Emit(story.F{"event": "left"})
}

func commit(o story.Options) {
	client, err := sarama.NewClient(hosts(o), config())
	story.Must(err)
	offsets, err := sarama.NewOffsetManagerFromClient(o["group"], client)
	story.Must(err)
	partition, err := offsets.ManagePartition(o["topic"], int32(o.Int("partition")))
	story.Must(err)
	partition.MarkOffset(int64(o.Int("offset")), o["metadata"])
	offsets.Commit()
	story.Must(partition.Close())
	story.Must(offsets.Close())
	story.Emit(story.F{"event": "committed", "offset": o.Int("offset"), "metadata": o["metadata"]})
}

func committed(o story.Options) {
	adm, err := sarama.NewClusterAdmin(hosts(o), config())
	story.Must(err)
	all, err := adm.ListConsumerGroupOffsets(o["group"], map[string][]int32{o["topic"]: {int32(o.Int("partition"))}})
	story.Must(err)
	at := all.GetBlock(o["topic"], int32(o.Int("partition")))
	story.Emit(story.F{"event": "committed", "offset": at.Offset, "metadata": at.Metadata})
}

// code is the error code that a call ends with. Sarama wraps what the broker said in structures of its own.
func code(err error) any {
	if err == nil {
		return 0
	}
	var topic *sarama.TopicError
	if errors.As(err, &topic) {
		return int16(topic.Err)
	}
	var partition *sarama.TopicPartitionError
	if errors.As(err, &partition) {
		return int16(partition.Err)
	}
	var plain sarama.KError
	if errors.As(err, &plain) {
		return int16(plain)
	}
	return err.Error()
}

func value[T any](v T, err error) T {
	story.Must(err)
	return v
}

func admin(o story.Options) {
	client := value(sarama.NewClient(hosts(o), config()))
	adm := value(sarama.NewClusterAdminFromClient(client))
	topic, group := o["prefix"]+"-topic", o["prefix"]+"-group"
	emit := func(step string, fields story.F) {
		fields["step"] = step
		story.Emit(fields)
	}
	create := func(topic, retention string) any {
		return code(adm.CreateTopic(topic, &sarama.TopicDetail{
			NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &retention},
		}, false))
	}
	isListed := func() bool { _, has := value(adm.ListTopics())[topic]; return has }
	described := func() *sarama.TopicMetadata { return value(adm.DescribeTopics([]string{topic}))[0] }
	config := func() sarama.ConfigEntry {
		return value(adm.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}}))[0]
	}
	offsets := func() story.F {
		return story.F{
			"earliest": value(client.GetOffset(topic, 0, sarama.OffsetOldest)),
			"latest":   value(client.GetOffset(topic, 0, sarama.OffsetNewest)),
		}
	}
	hasGroup := func() bool { _, has := value(adm.ListConsumerGroups())[group]; return has }

	brokers, controller, err := adm.DescribeCluster()
	story.Must(err)
	emit("cluster", story.F{"brokers": len(brokers), "controller": controller >= 0})
	emit("create_topic", story.F{"error": create(topic, "3600000")})
	emit("create_topic_again", story.F{"error": create(topic, "3600000")})
	emit("create_bad_config", story.F{"error": create(topic+"-bad", "soon")})
	emit("create_bad_name", story.F{"error": create("not/a/topic", "1")})
	emit("list_topics", story.F{"has": story.Eventually(isListed)})
	led := true
	for _, p := range described().Partitions {
		led = led && p.Leader >= 0
	}
	emit("describe_topic", story.F{"partitions": len(described().Partitions), "led": led})
	emit("create_partitions", story.F{"error": code(adm.CreatePartitions(topic, 5, nil, false))})
	emit("partitions_created", story.F{"has": story.Eventually(func() bool { return len(described().Partitions) == 5 })})
	emit("describe_configs", story.F{"value": config().Value, "default": config().Default})
	longer, shorter := "7200000", "1800000"
	emit("alter_configs", story.F{"error": code(adm.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &longer},
	}, false))})
	emit("configs_altered", story.F{"has": story.Eventually(func() bool { return config().Value == longer })})
	emit("alter_configs_whole", story.F{"error": code(adm.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &shorter}, false))})
	emit("configs_altered_whole", story.F{"has": story.Eventually(func() bool { return config().Value == shorter })})
	broker := value(adm.DescribeConfig(sarama.ConfigResource{Type: sarama.BrokerResource, Name: fmt.Sprint(brokers[0].ID()), ConfigNames: []string{"log.retention.ms"}}))
	emit("describe_broker_configs", story.F{"has": len(broker) == 1})

	c := client.Config()
	c.Producer.Partitioner = sarama.NewManualPartitioner
	producer := value(sarama.NewSyncProducerFromClient(client))
	for i := range 10 {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: 0, Value: sarama.StringEncoder(fmt.Sprint(i))})
		story.Must(err)
	}
	emit("list_offsets", offsets())
	emit("delete_records", story.F{"error": code(adm.DeleteRecords(topic, map[int32]int64{0: 4}))})
	emit("records_deleted", offsets())

	commit(story.Options{"bootstrap": o["bootstrap"], "group": group, "topic": topic, "partition": "0", "offset": "7"})
	emit("list_groups", story.F{"has": hasGroup()})
	seen := value(adm.DescribeConsumerGroups([]string{group}))[0]
	emit("describe_group", story.F{"state": seen.State, "members": len(seen.Members)})
	held := value(adm.ListConsumerGroupOffsets(group, nil))
	emit("group_offsets", story.F{"offset": held.GetBlock(topic, 0).Offset})
	emit("delete_group_offsets", story.F{"error": code(adm.DeleteConsumerGroupOffset(group, topic, 0))})
	emit("delete_group", story.F{"error": code(adm.DeleteConsumerGroup(group))})
	emit("group_deleted", story.F{"has": hasGroup()})
	dirs, err := adm.DescribeLogDirs([]int32{brokers[0].ID()})
	emit("describe_log_dirs", story.F{"error": code(err), "has": len(dirs) > 0})
	_, err = adm.DescribeClientQuotas(nil, false)
	emit("describe_client_quotas", story.F{"error": code(err)})
	emit("delete_topic", story.F{"error": code(adm.DeleteTopic(topic))})
	emit("topic_deleted", story.F{"has": story.Eventually(func() bool { return !isListed() })})
}

func main() {
	command, o := story.Arguments()
	map[string]func(story.Options){
		"produce": produce, "consume": consume, "group": group, "commit": commit, "committed": committed, "admin": admin,
	}[command](o)
}
