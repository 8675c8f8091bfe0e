// franz-go: the client that follows Kafka's newest versions first. Commands: see ../../python/story.py.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chronik/e2e/story"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

var ctx = context.Background()

func open(o story.Options, more ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(o["bootstrap"], ",")...),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.AllowAutoTopicCreation(),
	}, more...)...)
	story.Must(err)
	return client
}

func read(r *kgo.Record) story.Read {
	headers := [][2]string{}
	for _, h := range r.Headers {
		headers = append(headers, [2]string{h.Key, string(h.Value)})
	}
	return story.Read{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, At: r.Timestamp, Key: r.Key, Value: r.Value, Headers: headers}
}

func produce(o story.Options) {
	options := []kgo.Opt{kgo.ProducerBatchCompression(codecs[o["codec"]])}
	if o["idempotent"] != "true" {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	client := open(o, options...)
	records := []*kgo.Record{}
	for i := range o.Int("count") {
		key, value, headers, at := o.Record(i)
		record := &kgo.Record{Topic: o["topic"], Key: key, Value: value, Timestamp: at}
		for _, h := range headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
		records = append(records, record)
	}
	story.Must(client.ProduceSync(ctx, records...).FirstErr())
	client.Close()
	story.Emit(story.F{"event": "produced", "count": len(records)})
}

func consume(o story.Options) {
	client := open(o, kgo.ConsumeTopics(o.Topics()...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond))
	within, cancel := context.WithTimeout(ctx, story.Patience)
	defer cancel()
	count := 0
	for count < o.Int("count") && within.Err() == nil {
		fetches := client.PollFetches(within)
		if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			story.Must(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			read(r).Emit()
			count++
		})
	}
	client.Close()
	story.Emit(story.F{"event": "end", "count": count})
}

func group(o story.Options) {
	balancer := kgo.RangeBalancer()
	switch o["strategy"] {
	case "cooperative-sticky":
		balancer = kgo.CooperativeStickyBalancer()
	case "roundrobin":
		balancer = kgo.RoundRobinBalancer()
	}
	var mutex sync.Mutex
	held := map[string]map[int32]bool{}
	tell := func() {
		all := map[string][]int32{}
		for topic, partitions := range held {
			for p := range partitions {
				all[topic] = append(all[topic], p)
			}
		}
		story.EmitPartitions("assigned", all)
	}
	change := func(with map[string][]int32, have bool) {
		mutex.Lock()
		defer mutex.Unlock()
		for topic, partitions := range with {
			if held[topic] == nil {
				held[topic] = map[int32]bool{}
			}
			for _, p := range partitions {
				if have {
					held[topic][p] = true
				} else {
					delete(held[topic], p)
				}
			}
		}
		if have {
			tell()
		} else {
			story.EmitPartitions("revoked", with)
		}
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(o["group"]),
		kgo.ConsumeTopics(o.Topics()...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.Balancers(balancer),
		kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, with map[string][]int32) { change(with, true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, with map[string][]int32) { change(with, false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, with map[string][]int32) { change(with, false) }),
	}
	if o["instance"] != "" {
		options = append(options, kgo.InstanceID(o["instance"]))
	}
	client := open(o, options...)
	leave, sink := story.Leave(), o.Sink()
	for stopped := false; !stopped; {
		select {
		case <-leave:
			stopped = true
		default:
			brief, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			client.PollRecords(brief, 5000).EachRecord(func(r *kgo.Record) { sink.Record(read(r)) })
			cancel()
			sink.Flush()
			commit, cancel := context.WithTimeout(ctx, 10*time.Second)
			if err := client.CommitUncommittedOffsets(commit); err != nil {
				story.Emit(story.F{"event": "warning", "text": err.Error()})
			}
			cancel()
		}
	}
	client.Close()
	story.Emit(story.F{"event": "left"})
}

func lines(o story.Options) {
	client := open(o, kgo.ProducerBatchCompression(codecs[o["codec"]]), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(100_000))
	file, err := os.Open(o["file"])
	story.Must(err)
	var acked, refused atomic.Int64
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		value := append([]byte{}, lines.Bytes()...)
		client.Produce(ctx, &kgo.Record{Topic: o["topic"], Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				refused.Add(1)
			} else if n := acked.Add(1); n%50_000 == 0 {
				story.Emit(story.F{"event": "progress", "acked": n})
			}
		})
	}
	story.Must(lines.Err())
	story.Must(client.Flush(ctx))
	client.Close()
	story.Emit(story.F{"event": "produced", "count": acked.Load(), "refused": refused.Load()})
}

func sequence(o story.Options) {
	client := open(o, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond), kgo.RequestTimeoutOverhead(10*time.Second))
	leave, keys, partitions := story.Leave(), o.Int("keys"), o.Int("partitions")
	pace := time.NewTicker(20 * time.Millisecond)
	value := 0
	for stopped := false; !stopped; {
		select {
		case <-leave:
			stopped = true
		case <-pace.C:
			for range 10 {
				number, key := value, value%keys
				record := &kgo.Record{
					Topic: o["topic"], Partition: int32(key % partitions),
					Key: fmt.Appendf(nil, "%s-%d", o["name"], key), Value: fmt.Appendf(nil, "%s:%d", o["name"], number),
				}
				client.Produce(ctx, record, func(r *kgo.Record, err error) {
					if err != nil {
						story.Emit(story.F{"event": "refused", "value": number, "why": err.Error()})
					} else {
						story.Emit(story.F{"event": "acknowledged", "value": number, "partition": r.Partition, "offset": r.Offset})
					}
				})
				value++
			}
		}
	}
	story.Must(client.Flush(ctx))
	client.Close()
	story.Emit(story.F{"event": "left"})
}

func commit(o story.Options) {
	client := open(o)
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: o["topic"], Partition: int32(o.Int("partition")), At: int64(o.Int("offset")), LeaderEpoch: -1, Metadata: o["metadata"]})
	story.Must(kadm.NewClient(client).CommitAllOffsets(ctx, o["group"], offsets))
	client.Close()
	story.Emit(story.F{"event": "committed", "offset": o.Int("offset"), "metadata": o["metadata"]})
}

func committed(o story.Options) {
	client := open(o)
	all, err := kadm.NewClient(client).FetchOffsetsForTopics(ctx, o["group"], o["topic"])
	story.Must(err)
	at, _ := all.Lookup(o["topic"], int32(o.Int("partition")))
	client.Close()
	story.Emit(story.F{"event": "committed", "offset": at.At, "metadata": at.Metadata})
}

func code(err error) any {
	if err == nil {
		return 0
	}
	var known *kerr.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return err.Error()
}

func main() {
	command, o := story.Arguments()
	map[string]func(story.Options){
		"produce": produce, "consume": consume, "group": group, "lines": lines, "sequence": sequence, "commit": commit, "committed": committed, "admin": admin,
	}[command](o)
}
