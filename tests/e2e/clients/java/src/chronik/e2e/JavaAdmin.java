package chronik.e2e;

import static chronik.e2e.Story.emit;

import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Every admin call of the Java client that a broker of one node answers. */
final class JavaAdmin {
    private final Admin admin;
    private final String topic;
    private final String group;
    private final ConfigResource topicResource;

    private JavaAdmin(Admin admin, Story story) {
        this.admin = admin;
        topic = story.get("prefix") + "-topic";
        group = story.get("prefix") + "-group";
        topicResource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    static void run(Story story) throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", story.get("bootstrap")))) {
            JavaAdmin steps = new JavaAdmin(admin, story);
            steps.topics();
            steps.records(story);
            steps.groups();
            steps.cluster();
            emit("step", "delete_topic", "error", error(admin.deleteTopics(List.of(steps.topic)).all()));
            emit("step", "topic_deleted", "has", Story.eventually(() -> !steps.isListed()));
        }
    }

    private static int error(KafkaFuture<?> future) throws InterruptedException {
        try {
            future.get();
            return 0;
        } catch (ExecutionException e) {
            return Errors.forException(e.getCause()).code();
        }
    }

    private static int error(Callable<?> call) throws Exception {
        try {
            call.call();
            return 0;
        } catch (ExecutionException e) {
            return Errors.forException(e.getCause()).code();
        }
    }

    private KafkaFuture<?> create(String name, String retention) {
        NewTopic wanted = new NewTopic(name, Optional.of(3), Optional.empty()).configs(Map.of("retention.ms", retention));
        return admin.createTopics(List.of(wanted)).all();
    }

    private boolean isListed() throws Exception {
        return admin.listTopics().names().get().contains(topic);
    }

    private TopicDescription described() throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    private ConfigEntry retention() throws Exception {
        return admin.describeConfigs(List.of(topicResource)).all().get().get(topicResource).get("retention.ms");
    }

    private void topics() throws Exception {
        DescribeClusterResult cluster = admin.describeCluster();
        emit("step", "cluster", "brokers", cluster.nodes().get().size(), "controller", cluster.controller().get() != null,
            "id", !cluster.clusterId().get().isEmpty());
        emit("step", "create_topic", "error", error(create(topic, "3600000")));
        emit("step", "create_topic_again", "error", error(create(topic, "3600000")));
        emit("step", "create_bad_config", "error", error(create(topic + "-bad", "soon")));
        emit("step", "create_bad_name", "error", error(create("not/a/topic", "1")));
        emit("step", "list_topics", "has", Story.eventually(this::isListed));
        emit("step", "describe_topic", "partitions", described().partitions().size(), "led",
            described().partitions().stream().allMatch(p -> p.leader() != null));
        emit("step", "describe_unknown_topic", "error", error(admin.describeTopics(List.of(topic + "-unknown")).allTopicNames()));
        emit("step", "create_partitions", "error", error(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all()));
        emit("step", "partitions_created", "has", Story.eventually(() -> described().partitions().size() == 5));
        emit("step", "describe_configs", "value", retention().value(), "default", retention().isDefault());
        Map<ConfigResource, java.util.Collection<AlterConfigOp>> change = Map.of(topicResource,
            List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET)));
        emit("step", "alter_configs", "error", error(admin.incrementalAlterConfigs(change).all()));
        emit("step", "configs_altered", "has", Story.eventually(() -> retention().value().equals("7200000")));
        String node = String.valueOf(cluster.nodes().get().iterator().next().id());
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node);
        Config brokerConfig = admin.describeConfigs(List.of(broker)).all().get().get(broker);
        emit("step", "describe_broker_configs", "has", brokerConfig.get("log.retention.ms") != null);
    }

    private Object offset(OffsetSpec spec) throws Exception {
        TopicPartition zero = new TopicPartition(topic, 0);
        return admin.listOffsets(Map.of(zero, spec)).partitionResult(zero).get().offset();
    }

    private void records(Story story) throws Exception {
        long first = System.currentTimeMillis();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
            Map.of("bootstrap.servers", story.get("bootstrap")), new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>(topic, 0, first + i, null, Story.bytes("" + i)));
            }
        }
        TopicPartition zero = new TopicPartition(topic, 0);
        emit("step", "list_offsets", "earliest", offset(OffsetSpec.earliest()), "latest", offset(OffsetSpec.latest()));
        emit("step", "list_offsets_by_time", "from", offset(OffsetSpec.forTimestamp(first + 3)), "max",
            offset(OffsetSpec.maxTimestamp()), "later", offset(OffsetSpec.forTimestamp(first + 10)));
        emit("step", "list_offsets_local", "earliest", offset(OffsetSpec.earliestLocal()), "tiered", offset(OffsetSpec.latestTiered()));
        long low = admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(zero).get().lowWatermark();
        emit("step", "delete_records", "low", low);
        emit("step", "records_deleted", "earliest", offset(OffsetSpec.earliest()), "latest", offset(OffsetSpec.latest()));
    }

    private boolean hasGroup() throws Exception {
        return admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group));
    }

    private void groups() throws Exception {
        TopicPartition zero = new TopicPartition(topic, 0);
        Map<TopicPartition, OffsetAndMetadata> at = Map.of(zero, new OffsetAndMetadata(7, "noted"));
        emit("step", "alter_group_offsets", "error", error(admin.alterConsumerGroupOffsets(group, at).all()));
        emit("step", "list_groups", "has", hasGroup());
        ConsumerGroupDescription seen = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        emit("step", "describe_group", "state", seen.groupState().toString(), "members", seen.members().size());
        emit("step", "describe_unknown_group", "error", error(admin.describeConsumerGroups(List.of(group + "-unknown")).all()));
        OffsetAndMetadata held = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(zero);
        emit("step", "group_offsets", "offset", held.offset(), "metadata", held.metadata());
        emit("step", "delete_group_offsets", "error", error(admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all()));
        emit("step", "delete_group", "error", error(admin.deleteConsumerGroups(List.of(group)).all()));
        emit("step", "group_deleted", "has", hasGroup());
    }

    private void cluster() throws Exception {
        TopicPartition zero = new TopicPartition(topic, 0);
        int node = admin.describeCluster().nodes().get().iterator().next().id();
        emit("step", "describe_log_dirs", "has", admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).values()
            .stream().anyMatch(dir -> dir.replicaInfos().containsKey(zero)));
        emit("step", "describe_producers", "error", error(admin.describeProducers(List.of(zero)).all()));
        emit("step", "elect_leaders", "error", error(() -> {
            Optional<Throwable> one = admin.electLeaders(ElectionType.PREFERRED, Set.of(zero)).partitions().get().get(zero);
            if (one.isPresent()) {
                throw new ExecutionException(one.get());
            }
            return null;
        }));
        emit("step", "list_reassignments", "error", error(admin.listPartitionReassignments().reassignments()));
        emit("step", "describe_quorum", "error", error(admin.describeMetadataQuorum().quorumInfo()));
        emit("step", "describe_features", "has",
            admin.describeFeatures().featureMetadata().get().finalizedFeatures().containsKey("metadata.version"));
        emit("step", "list_config_resources", "error", error(admin.listConfigResources().all()));
        emit("step", "describe_client_quotas", "error", error(admin.describeClientQuotas(ClientQuotaFilter.all()).entities()));
        emit("step", "describe_acls", "error", error(admin.describeAcls(AclBindingFilter.ANY).values()));
    }
}
