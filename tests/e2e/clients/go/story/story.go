// Package story is what the Go clients share with those in other languages: the command line, the records of a story and
// one JSON object per line of output. The commands are described in ../../python/story.py.
package story

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Patience is when a command gives up: far above what any of them needs, so that only a hang meets it.
const Patience = 120 * time.Second

// Options are the words after the command, as --name value.
type Options map[string]string

// Arguments are the command and its options.
func Arguments() (string, Options) {
	o := Options{}
	for i := 2; i+1 < len(os.Args); i += 2 {
		o[strings.TrimPrefix(os.Args[i], "--")] = os.Args[i+1]
	}
	return os.Args[1], o
}

func (o Options) Int(name string) int {
	n, err := strconv.Atoi(o[name])
	Must(err)
	return n
}

func (o Options) Topics() []string { return strings.Split(o["topics"], ",") }

func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Record is the i-th record: some have no key, some no value.
func (o Options) Record(i int) (key, value []byte, headers [][2]string, at time.Time) {
	if i%50 != 48 {
		key = fmt.Appendf(nil, "%s-key-%d", o["prefix"], i)
	}
	if i%50 != 49 {
		value = fmt.Appendf(nil, "%s-value-%d-%s", o["prefix"], i, strings.Repeat("chronik ", 16))
	}
	headers = [][2]string{{"origin", o["prefix"]}, {"number", strconv.Itoa(i)}}
	return key, value, headers, time.UnixMilli(int64(o.Int("first-timestamp") + i))
}

// F is one object of output.
type F map[string]any

var output sync.Mutex

func Emit(fields F) {
	text, err := json.Marshal(fields)
	Must(err)
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

// Read is a record as it arrived.
type Read struct {
	Topic      string
	Partition  int32
	Offset     int64
	At         time.Time
	Key, Value []byte
	Headers    [][2]string
}

func text(b []byte) any {
	if b == nil {
		return nil
	}
	return string(b)
}

func (r Read) Emit() {
	headers := r.Headers
	if headers == nil {
		headers = [][2]string{}
	}
	Emit(F{"event": "record", "topic": r.Topic, "partition": r.Partition, "offset": r.Offset, "timestamp": r.At.UnixMilli(),
		"key": text(r.Key), "value": text(r.Value), "headers": headers})
}

// Sink is where a group member puts its records: standard output, or a file.
type Sink struct{ file *bufio.Writer }

func (o Options) Sink() *Sink {
	if o["out"] == "" {
		return &Sink{}
	}
	file, err := os.OpenFile(o["out"], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	Must(err)
	return &Sink{bufio.NewWriterSize(file, 1<<20)}
}

func (s *Sink) Record(r Read) {
	if s.file == nil {
		r.Emit()
		return
	}
	fmt.Fprintf(s.file, "%d\t%d\t%s\n", r.Partition, r.Offset, r.Value)
}

func (s *Sink) Flush() {
	if s.file != nil {
		Must(s.file.Flush())
	}
}

// EmitPartitions tells of an assignment or a revocation.
func EmitPartitions(event string, held map[string][]int32) {
	partitions := [][2]any{}
	topics := []string{}
	for topic := range held {
		topics = append(topics, topic)
	}
	sort.Strings(topics)
	for _, topic := range topics {
		sort.Slice(held[topic], func(a, b int) bool { return held[topic][a] < held[topic][b] })
		for _, p := range held[topic] {
			partitions = append(partitions, [2]any{topic, p})
		}
	}
	Emit(F{"event": event, "partitions": partitions})
}

// Leave is closed when standard input says "leave", or ends.
func Leave() <-chan struct{} {
	leave := make(chan struct{})
	go func() {
		defer close(leave)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if strings.TrimSpace(lines.Text()) == "leave" {
				return
			}
		}
	}()
	return leave
}

// Eventually waits for what admin calls promise only eventually, and says whether it came.
func Eventually(condition func() bool) bool {
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}
