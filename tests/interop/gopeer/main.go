// Command gopeer runs one member of a hashicorp/memberlist cluster for the
// interop tests, or, with -nodes, many of them for tools/bench.
//
// With one member it speaks JSON, one object a line: commands come in on stdin
// and are answered on stdout with {"reply": id, ...}; what the delegates see
// goes to stdout as {"event": kind, ...}. Byte strings are base64. It ends when
// stdin does, so that it never outlives the test that started it.
//
// It is built offline with the Go packages that Debian ships; memberlist there
// is 0.2.2, which knows no labels, hence no flag for one.
package main

import (
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

type options struct {
	name, bind, profile, key, metaHex, ack, versions string
	port, quicPort                                   int
	verbose                                          bool
	pushPull                                         time.Duration
	bench                                            benchOptions
}

func parseFlags() options {
	var o options
	flag.StringVar(&o.name, "name", "go", "node name; with -nodes its prefix")
	flag.StringVar(&o.bind, "bind", "127.0.0.1", "address to listen on; with -nodes each node takes a free port of it")
	flag.IntVar(&o.port, "port", 0, "port to listen on, 0 takes a free one")
	flag.StringVar(&o.profile, "profile", "local", "lan, wan or local")
	flag.StringVar(&o.key, "key", "", "base64 of the encryption key")
	flag.StringVar(&o.metaHex, "meta", "", "metadata in hex")
	flag.IntVar(&o.quicPort, "quic-port", -1, "metadata is this port as two bytes, big-endian")
	flag.StringVar(&o.ack, "ack", "", "payload of every acknowledgement")
	flag.StringVar(&o.versions, "delegate-versions", "0,0,0", "delegate protocol min,max,current")
	flag.DurationVar(&o.pushPull, "push-pull", 0, "time between push/pulls, 0 for the profile's")
	flag.BoolVar(&o.verbose, "verbose", false, "memberlist's log on stderr")
	flag.IntVar(&o.bench.nodes, "nodes", 0, "measure this many nodes in this process and print the figures")
	flag.IntVar(&o.bench.kills, "kills", 3, "with -nodes: members to kill, one after another")
	flag.Float64Var(&o.bench.idle, "idle", 10, "with -nodes: seconds of idling to measure")
	flag.Parse()
	return o
}

// config turns the flags into memberlist's settings for one node.
func (o options) config(name string) (*memberlist.Config, error) {
	var c *memberlist.Config
	switch o.profile {
	case "lan":
		c = memberlist.DefaultLANConfig()
	case "wan":
		c = memberlist.DefaultWANConfig()
	case "local":
		c = memberlist.DefaultLocalConfig()
	default:
		return nil, fmt.Errorf("-profile %q is none of lan, wan, local", o.profile)
	}
	c.Name, c.BindAddr, c.BindPort, c.AdvertisePort = name, o.bind, o.port, o.port
	if o.key != "" {
		key, err := base64.StdEncoding.DecodeString(o.key)
		if err != nil {
			return nil, fmt.Errorf("-key: %v", err)
		}
		c.SecretKey = key
	}
	parts := strings.Split(o.versions, ",")
	if len(parts) != 3 {
		return nil, fmt.Errorf("-delegate-versions %q is not min,max,current", o.versions)
	}
	for i, field := range []*uint8{&c.DelegateProtocolMin, &c.DelegateProtocolMax, &c.DelegateProtocolVersion} {
		number, err := strconv.ParseUint(strings.TrimSpace(parts[i]), 10, 8)
		if err != nil {
			return nil, fmt.Errorf("-delegate-versions: %v", err)
		}
		*field = uint8(number)
	}
	if o.pushPull > 0 {
		c.PushPullInterval = o.pushPull
	}
	c.Logger = log.New(quiet{o.verbose}, name+" ", log.Lmicroseconds)
	return c, nil
}

func (o options) meta() ([]byte, error) {
	if o.quicPort >= 0 {
		return []byte{byte(o.quicPort >> 8), byte(o.quicPort)}, nil
	}
	return hex.DecodeString(o.metaHex)
}

// quiet drops the log unless it was asked for.
type quiet struct{ verbose bool }

func (q quiet) Write(line []byte) (int, error) {
	if q.verbose {
		return os.Stderr.Write(line)
	}
	return len(line), nil
}

func main() {
	o := parseFlags()
	var err error
	if o.bench.nodes > 0 {
		err = runBench(o)
	} else {
		err = runPeer(o, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gopeer:", err)
		os.Exit(1)
	}
}
