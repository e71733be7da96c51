package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// command is everything that a line on stdin may hold; each kind uses a few fields.
type command struct {
	ID      int      `json:"id"`
	Cmd     string   `json:"cmd"`
	Addrs   []string `json:"addrs"`
	To      string   `json:"to"`
	Data    []byte   `json:"data"`
	Timeout float64  `json:"timeout"`
}

func (c command) timeout() time.Duration {
	if c.Timeout <= 0 {
		return 5 * time.Second
	}
	return time.Duration(c.Timeout * float64(time.Second))
}

// node is how a member looks in an answer or an event.
type node struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	Port  int    `json:"port"`
	Meta  []byte `json:"meta"`
	Vsn   []int  `json:"vsn"`
	State int    `json:"state"`
}

func describe(n *memberlist.Node) node {
	return node{
		Name: n.Name, Host: n.Addr.String(), Port: int(n.Port), Meta: append([]byte{}, n.Meta...), State: int(n.State),
		Vsn: []int{int(n.PMin), int(n.PMax), int(n.PCur), int(n.DMin), int(n.DMax), int(n.DCur)},
	}
}

type fields map[string]interface{}

// peer is one member with all of memberlist's delegates, reporting what they see.
type peer struct {
	lines chan fields // to the one writer of stdout; deep enough that a delegate hardly ever waits
	list  *memberlist.Memberlist
	queue *memberlist.TransmitLimitedQueue

	lock             sync.Mutex // guards what follows: commands write it, memberlist's goroutines read it
	meta, state, ack []byte
}

func runPeer(o options, in io.Reader, out io.Writer) error {
	config, err := o.config(o.name)
	if err != nil {
		return err
	}
	meta, err := o.meta()
	if err != nil {
		return fmt.Errorf("-meta: %v", err)
	}
	p := &peer{lines: make(chan fields, 4096), meta: meta, ack: []byte(o.ack)}
	p.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: config.RetransmitMult, NumNodes: p.size}
	config.Delegate, config.Events, config.Conflict, config.Ping = p, p, p, p
	written := make(chan struct{})
	go func() {
		defer close(written)
		encoder := json.NewEncoder(out)
		for line := <-p.lines; line != nil; line = <-p.lines {
			if encoder.Encode(line) != nil {
				os.Exit(0) // nobody reads any more
			}
		}
	}()
	list, err := memberlist.Create(config)
	if err != nil {
		return err
	}
	p.lock.Lock()
	p.list = list
	p.lock.Unlock()
	p.lines <- fields{"event": "ready", "node": describe(list.LocalNode())}
	p.serve(in)
	err = list.Shutdown()
	// Late goroutines of memberlist may still report, so the channel is never closed: nil ends the writer.
	p.lines <- nil
	<-written
	return err
}

func (p *peer) size() int {
	p.lock.Lock()
	list := p.list
	p.lock.Unlock()
	if list == nil {
		return 1
	}
	return list.NumMembers()
}

// serve runs each command in a goroutine of its own: joins and leaves wait, others need not wait for them.
func (p *peer) serve(in io.Reader) {
	var running sync.WaitGroup
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 1<<16), 1<<26)
	for scanner.Scan() {
		var c command
		if err := json.Unmarshal(scanner.Bytes(), &c); err != nil {
			p.lines <- fields{"reply": 0, "error": err.Error()}
			continue
		}
		if c.Cmd == "shutdown" {
			p.lines <- fields{"reply": c.ID}
			break
		}
		running.Add(1)
		go func() {
			defer running.Done()
			answer, err := p.run(c)
			if answer == nil {
				answer = fields{}
			}
			answer["reply"] = c.ID
			if err != nil {
				answer["error"] = err.Error()
			}
			p.lines <- answer
		}()
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

func (p *peer) run(c command) (fields, error) {
	switch c.Cmd {
	case "join":
		count, err := p.list.Join(c.Addrs)
		return fields{"count": count}, err
	case "members":
		members := []node{}
		for _, n := range p.list.Members() {
			members = append(members, describe(n))
		}
		return fields{"members": members}, nil
	case "update_meta":
		p.set(&p.meta, c.Data)
		return nil, p.list.UpdateNode(c.timeout())
	case "set_local_state":
		p.set(&p.state, c.Data)
		return nil, nil
	case "set_ack_payload":
		p.set(&p.ack, c.Data)
		return nil, nil
	case "queue_broadcast":
		p.queue.QueueBroadcast(broadcast(c.Data))
		return nil, nil
	case "leave":
		return nil, p.list.Leave(c.timeout())
	case "stats":
		return fields{"members": p.list.NumMembers(), "health": p.list.GetHealthScore(), "queued": p.queue.NumQueued()}, nil
	case "send_best_effort", "send_reliable", "ping":
		return p.talk(c)
	}
	return nil, fmt.Errorf("no command %q", c.Cmd)
}

// talk runs the commands that concern one other member.
func (p *peer) talk(c command) (fields, error) {
	var to *memberlist.Node
	for _, n := range p.list.Members() {
		if n.Name == c.To {
			to = n
		}
	}
	if to == nil {
		return nil, errors.New("no member " + c.To)
	}
	switch c.Cmd {
	case "send_best_effort":
		return nil, p.list.SendBestEffort(to, c.Data)
	case "send_reliable":
		return nil, p.list.SendReliable(to, c.Data)
	}
	addr, err := net.ResolveUDPAddr("udp", net.JoinHostPort(to.Addr.String(), strconv.Itoa(int(to.Port))))
	if err != nil {
		return nil, err
	}
	rtt, err := p.list.Ping(to.Name, addr)
	return fields{"rtt": rtt.Seconds()}, err
}

func (p *peer) set(where *[]byte, data []byte) {
	p.lock.Lock()
	*where = data
	p.lock.Unlock()
}

func (p *peer) get(where *[]byte) []byte {
	p.lock.Lock()
	defer p.lock.Unlock()
	return *where
}

// -- memberlist's delegates ------------------------------------------------------

func (p *peer) NodeMeta(limit int) []byte { return p.get(&p.meta) }

func (p *peer) NotifyMsg(data []byte) {
	// memberlist reuses the buffer.
	p.lines <- fields{"event": "msg", "data": append([]byte{}, data...)}
}

func (p *peer) GetBroadcasts(overhead, limit int) [][]byte {
	return p.queue.GetBroadcasts(overhead, limit)
}

func (p *peer) LocalState(join bool) []byte { return p.get(&p.state) }

func (p *peer) MergeRemoteState(data []byte, join bool) {
	p.lines <- fields{"event": "merge_state", "data": append([]byte{}, data...), "join": join}
}

func (p *peer) NotifyJoin(n *memberlist.Node) {
	p.lines <- fields{"event": "join", "node": describe(n)}
}

func (p *peer) NotifyLeave(n *memberlist.Node) {
	p.lines <- fields{"event": "leave", "node": describe(n)}
}

func (p *peer) NotifyUpdate(n *memberlist.Node) {
	p.lines <- fields{"event": "update", "node": describe(n)}
}

func (p *peer) NotifyConflict(existing, other *memberlist.Node) {
	p.lines <- fields{"event": "conflict", "node": describe(existing), "other": describe(other)}
}

func (p *peer) AckPayload() []byte { return p.get(&p.ack) }

func (p *peer) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, payload []byte) {
	p.lines <- fields{"event": "ping_complete", "node": describe(n), "rtt": rtt.Seconds(), "data": append([]byte{}, payload...)}
}

// broadcast is a user message that never replaces another one.
type broadcast []byte

func (b broadcast) Invalidates(memberlist.Broadcast) bool { return false }
func (b broadcast) Message() []byte                       { return b }
func (b broadcast) Finished()                             {}
func (b broadcast) UniqueBroadcast()                      {}
