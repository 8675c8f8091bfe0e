package main

import (
	"fmt"

	"chronik/e2e/story"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func value[T any](v T, err error) T {
	story.Must(err)
	return v
}

// first is the error of a call, or else of its only result.
func first(err error, of func() error) any {
	if err != nil {
		return code(err)
	}
	return code(of())
}

func admin(o story.Options) {
	client := open(o, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	adm := kadm.NewClient(client)
	topic, group := o["prefix"]+"-topic", o["prefix"]+"-group"
	emit := func(step string, fields story.F) {
		fields["step"] = step
		story.Emit(fields)
	}
	create := func(topic, retention string) any {
		_, err := adm.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": &retention}, topic)
		return code(err)
	}
	described := func() kadm.TopicDetail { return value(adm.ListTopics(ctx, topic))[topic] }
	config := func() kadm.Config {
		for _, c := range value(adm.DescribeTopicConfigs(ctx, topic))[0].Configs {
			if c.Key == "retention.ms" {
				return c
			}
		}
		return kadm.Config{}
	}
	offsets := func() story.F {
		start, _ := value(adm.ListStartOffsets(ctx, topic)).Lookup(topic, 0)
		end, _ := value(adm.ListEndOffsets(ctx, topic)).Lookup(topic, 0)
		return story.F{"earliest": start.Offset, "latest": end.Offset}
	}
	isListed := func() bool { return value(adm.ListTopics(ctx)).Has(topic) }
	hasGroup := func() bool { _, has := value(adm.ListGroups(ctx))[group]; return has }

	cluster := value(adm.BrokerMetadata(ctx))
	emit("cluster", story.F{"brokers": len(cluster.Brokers), "controller": cluster.Controller >= 0, "id": cluster.Cluster != ""})
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
	grown, err := adm.UpdatePartitions(ctx, 5, topic)
	emit("create_partitions", story.F{"error": first(err, grown.Error)})
	emit("partitions_created", story.F{"has": story.Eventually(func() bool { return len(described().Partitions) == 5 })})
	emit("describe_configs", story.F{"value": *config().Value, "default": config().Source.String() == "DEFAULT_CONFIG"})
	altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("7200000")}}, topic)
	emit("alter_configs", story.F{"error": first(err, func() error { return altered[0].Err })})
	emit("configs_altered", story.F{"has": story.Eventually(func() bool { return *config().Value == "7200000" })})
	has := false
	for _, c := range value(adm.DescribeBrokerConfigs(ctx, cluster.Brokers[0].NodeID))[0].Configs {
		has = has || c.Key == "log.retention.ms"
	}
	emit("describe_broker_configs", story.F{"has": has})

	for i := range 10 {
		story.Must(client.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: 0, Value: fmt.Append(nil, i)}).FirstErr())
	}
	emit("list_offsets", offsets())
	before := kadm.Offsets{}
	before.Add(kadm.Offset{Topic: topic, Partition: 0, At: 4})
	deleted, _ := value(adm.DeleteRecords(ctx, before)).Lookup(topic, 0)
	emit("delete_records", story.F{"low": deleted.LowWatermark})
	emit("records_deleted", offsets())

	at := kadm.Offsets{}
	at.Add(kadm.Offset{Topic: topic, Partition: 0, At: 7, LeaderEpoch: -1})
	emit("alter_group_offsets", story.F{"error": code(adm.CommitAllOffsets(ctx, group, at))})
	emit("list_groups", story.F{"has": hasGroup()})
	seen := value(adm.DescribeGroups(ctx, group))[group]
	emit("describe_group", story.F{"state": seen.State, "members": len(seen.Members)})
	held, _ := value(adm.FetchOffsets(ctx, group)).Lookup(topic, 0)
	emit("group_offsets", story.F{"offset": held.At})
	lag := value(adm.Lag(ctx, group))[group].Lag[topic][0]
	emit("group_lag", story.F{"lag": lag.Lag})
	set := kadm.TopicsSet{}
	set.Add(topic, 0)
	removed, err := adm.DeleteOffsets(ctx, group, set)
	emit("delete_group_offsets", story.F{"error": first(err, removed.Error)})
	gone, err := adm.DeleteGroups(ctx, group)
	emit("delete_group", story.F{"error": first(err, gone.Error)})
	emit("group_deleted", story.F{"has": hasGroup()})

	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	emit("describe_log_dirs", story.F{"error": code(err), "has": len(dirs) > 0})
	producers, err := adm.DescribeProducers(ctx, set)
	emit("describe_producers", story.F{"error": first(err, func() error { return producers[topic].Partitions[0].Err })})
	elected, err := adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	emit("elect_leaders", story.F{"error": first(err, func() error { return elected[topic][0].Err })})
	moving, err := adm.ListPartitionReassignments(ctx, nil)
	emit("list_reassignments", story.F{"error": code(err), "moving": len(moving)})
	_, err = adm.DescribeClientQuotas(ctx, false, nil)
	emit("describe_client_quotas", story.F{"error": code(err)})
	epochs := kadm.OffsetForLeaderEpochRequest{}
	epochs.Add(topic, 0, 0)
	ends := value(adm.OffetForLeaderEpoch(ctx, epochs))
	emit("offset_for_leader_epoch", story.F{"end": ends[topic][0].EndOffset})
	versions := value(adm.ApiVersions(ctx))
	emit("api_versions", story.F{"error": code(versions[cluster.Brokers[0].NodeID].Err)})
	dropped, err := adm.DeleteTopics(ctx, topic)
	emit("delete_topic", story.F{"error": first(err, dropped.Error)})
	emit("topic_deleted", story.F{"has": story.Eventually(func() bool { return !isListed() })})
	client.Close()
}
