package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metrics "github.com/armon/go-metrics"
	"github.com/hashicorp/memberlist"
)

type benchOptions struct {
	nodes, kills int
	idle         float64
}

// figures is what one run prints, as one JSON object. Times are seconds.
type figures struct {
	Nodes          int       `json:"nodes"`
	Profile        string    `json:"profile"`
	AllSeeAll      float64   `json:"all_see_all"`
	Kills          []killing `json:"kills"`
	IdleSeconds    float64   `json:"idle_seconds"`
	IdleCPU        float64   `json:"idle_cpu_seconds_per_node_minute"`
	PacketsSent    float64   `json:"packets_sent_per_node_second"`
	PacketsHandled float64   `json:"packets_handled_per_node_second"`
	BytesSent      float64   `json:"bytes_sent_per_node_second"`
	CPUPerPacket   float64   `json:"cpu_microseconds_per_packet_handled"`
	MaxRSSMegabyte float64   `json:"max_rss_megabytes"`
}

type killing struct {
	First  float64 `json:"first"`
	Median float64 `json:"median"`
	Last   float64 `json:"last"`
	Missed int     `json:"missed"`
}

// watcher counts what one node sees of the others.
type watcher struct {
	lock  sync.Mutex
	seen  map[string]bool
	left  map[string]time.Time
	want  int
	whole chan time.Time // gets the moment when seen first reaches want
}

func (w *watcher) NotifyJoin(n *memberlist.Node) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.seen[n.Name] = true
	delete(w.left, n.Name)
	if len(w.seen) == w.want {
		select {
		case w.whole <- time.Now():
		default:
		}
	}
}

func (w *watcher) NotifyLeave(n *memberlist.Node) {
	w.lock.Lock()
	defer w.lock.Unlock()
	delete(w.seen, n.Name)
	w.left[n.Name] = time.Now()
}

func (w *watcher) NotifyUpdate(*memberlist.Node) {}

func (w *watcher) leftAt(name string) (time.Time, bool) {
	w.lock.Lock()
	defer w.lock.Unlock()
	at, ok := w.left[name]
	return at, ok
}

// counters is a metrics sink that keeps memberlist's packet counts only.
type counters struct {
	metrics.BlackholeSink
	sent, sentBytes, handled int64
}

func (c *counters) IncrCounterWithLabels(key []string, value float32, _ []metrics.Label) {
	if len(key) < 2 || key[len(key)-2] != "udp" {
		return
	}
	if key[len(key)-1] == "sent" {
		atomic.AddInt64(&c.sent, 1)
		atomic.AddInt64(&c.sentBytes, int64(value))
	} else {
		atomic.AddInt64(&c.handled, 1)
	}
}

func cpuSeconds() (cpu, megabytes float64) {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0, 0
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime), float64(usage.Maxrss) / 1024
}

type cluster struct {
	lists    []*memberlist.Memberlist
	watchers []*watcher
}

func runBench(o options) error {
	sink := &counters{}
	settings := metrics.DefaultConfig("")
	settings.EnableHostname, settings.EnableRuntimeMetrics = false, false
	if _, err := metrics.NewGlobal(settings, sink); err != nil {
		return err
	}
	var c cluster
	for i := 0; i < o.bench.nodes; i++ {
		config, err := o.config(fmt.Sprintf("%s%d", o.name, i))
		if err != nil {
			return err
		}
		if i > 0 {
			config.BindPort, config.AdvertisePort = 0, 0
		}
		w := &watcher{seen: map[string]bool{}, left: map[string]time.Time{}, want: o.bench.nodes, whole: make(chan time.Time, 1)}
		config.Events = w
		list, err := memberlist.Create(config)
		if err != nil {
			return err
		}
		c.lists, c.watchers = append(c.lists, list), append(c.watchers, w)
	}
	result := figures{Nodes: o.bench.nodes, Profile: o.profile}
	all, err := c.joinBurst()
	if err != nil {
		return err
	}
	result.AllSeeAll = all
	c.measureIdle(o.bench.idle, sink, &result)
	for i := 0; i < o.bench.kills && i < len(c.lists)-2; i++ {
		result.Kills = append(result.Kills, c.kill(len(c.lists)-1-i))
	}
	_, result.MaxRSSMegabyte = cpuSeconds()
	return json.NewEncoder(os.Stdout).Encode(result)
}

// joinBurst lets everybody join node 0 at once and returns the time until all see all.
func (c *cluster) joinBurst() (float64, error) {
	self := c.lists[0].LocalNode()
	seed := fmt.Sprintf("%s:%d", self.Addr, self.Port)
	start := time.Now()
	failures := make(chan error, len(c.lists))
	for _, list := range c.lists[1:] {
		go func(list *memberlist.Memberlist) {
			if _, err := list.Join([]string{seed}); err != nil {
				failures <- err
			}
		}(list)
	}
	last, limit := start, time.After(120*time.Second)
	for i, w := range c.watchers {
		select {
		case at := <-w.whole:
			if at.After(last) {
				last = at
			}
		case err := <-failures:
			return 0, err
		case <-limit:
			return 0, fmt.Errorf("node %d does not see all after 120 s", i)
		}
	}
	return last.Sub(start).Seconds(), nil
}

func (c *cluster) measureIdle(seconds float64, sink *counters, result *figures) {
	if seconds <= 0 {
		return
	}
	time.Sleep(3 * time.Second) // let the gossip of the join run dry
	cpu, _ := cpuSeconds()
	sent, bytes, handled := atomic.LoadInt64(&sink.sent), atomic.LoadInt64(&sink.sentBytes), atomic.LoadInt64(&sink.handled)
	start := time.Now()
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	elapsed := time.Since(start).Seconds()
	after, _ := cpuSeconds()
	per := elapsed * float64(len(c.lists))
	packets := float64(atomic.LoadInt64(&sink.handled) - handled)
	result.IdleSeconds = elapsed
	result.IdleCPU = (after - cpu) / per * 60
	result.PacketsSent = float64(atomic.LoadInt64(&sink.sent)-sent) / per
	result.BytesSent = float64(atomic.LoadInt64(&sink.sentBytes)-bytes) / per
	result.PacketsHandled = packets / per
	if packets > 0 {
		result.CPUPerPacket = (after - cpu) * 1e6 / packets
	}
}

// kill shuts one node down without a word and times when the others before it notice.
func (c *cluster) kill(victim int) killing {
	name := c.lists[victim].LocalNode().Name
	start := time.Now()
	_ = c.lists[victim].Shutdown()
	limit := start.Add(60 * time.Second)
	var times []float64
	missed := 0
	for _, w := range c.watchers[:victim] {
		at, ok := w.leftAt(name)
		for ; !ok && time.Now().Before(limit); at, ok = w.leftAt(name) {
			time.Sleep(5 * time.Millisecond)
		}
		if ok {
			times = append(times, at.Sub(start).Seconds())
		} else {
			missed++
		}
	}
	if len(times) == 0 {
		return killing{Missed: missed}
	}
	sort.Float64s(times)
	return killing{First: times[0], Median: times[len(times)/2], Last: times[len(times)-1], Missed: missed}
}
