// Record makes recordings for docs: it runs what a page describes, on a separate cluster, and
// writes what it observed to docs/data. make docs calls it.
//
//	go run ./internal/record resync wire
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"example.com/informers/internal/clusters"
)

// A recording becomes docs/data/NAME.json. The result of record is encoded as a JSON object.
type recording struct {
	name, cluster string
	record        func(context.Context, *clusters.Cluster) (any, error)
}

var recordings = []recording{
	{"life-kind", "kind", life},
	{"life-local", "local", life},
	{"lister", "local", lister},
	{"resync", "local", resync},
	{"scale", "local", scale},
	{"synced", "local", synced},
	{"wire", "local", wire},
}

// recorded is the header of a recording: how, where and when it was made.
type recorded struct {
	Command    string `json:"command"`
	Machine    string `json:"machine"`
	Date       string `json:"date"`
	Kubernetes string `json:"kubernetes"`
	ClientGo   string `json:"clientGo"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "record: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	var all []string
	for _, r := range recordings {
		all = append(all, r.name)
	}
	if len(names) == 0 {
		return fmt.Errorf("name a recording: %s", strings.Join(all, ", "))
	}
	var chosen []recording
	for _, name := range names {
		i := slices.Index(all, name)
		if i < 0 {
			return fmt.Errorf("there is no recording %q; choose from %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, recordings[i])
	}
	for _, r := range chosen {
		if err := r.write(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// write makes a recording on a cluster that nothing else uses.
func (r recording) write(ctx context.Context) (err error) {
	cluster, err := clusters.Open(ctx, clusters.Options{
		Which: r.cluster, Prefix: "informers-record", Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close(context.WithoutCancel(ctx))) }()
	head, err := r.head(ctx, cluster)
	if err != nil {
		return err
	}
	body, err := r.record(ctx, cluster)
	if err != nil {
		return err
	}
	fields, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	all := slices.Concat([]byte(`{"recorded":`), head, []byte(","), fields[1:])
	if err := json.Indent(&text, all, "", "  "); err != nil {
		return err
	}
	text.WriteByte('\n')
	return os.WriteFile("docs/data/"+r.name+".json", text.Bytes(), 0o644)
}

func (r recording) head(ctx context.Context, cluster *clusters.Cluster) ([]byte, error) {
	client, err := cluster.Client()
	if err != nil {
		return nil, err
	}
	server, err := client.Discovery().ServerVersionWithContext(ctx)
	if err != nil {
		return nil, err
	}
	head := recorded{
		Command:    "go run ./internal/record " + r.name,
		Machine:    fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH),
		Date:       time.Now().UTC().Format(time.DateOnly),
		Kubernetes: server.GitVersion,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "k8s.io/client-go" {
				head.ClientGo = module.Version
			}
		}
	}
	return json.Marshal(head)
}

// A timeline is drawn as a picture: events in lanes over time.
type timeline struct {
	Name  string  `json:"name"`
	Title string  `json:"title"`
	Alt   string  `json:"alt"` // the content of the picture in words
	Unit  string  `json:"unit"`
	End   float64 `json:"end"`
	Lanes []*lane `json:"lanes"`
}

type lane struct {
	Name   string  `json:"name"`
	Events []event `json:"events"`
}

// An event is a point or, with Until, a bar. Its kind determines the color and the shape.
type event struct {
	At    float64 `json:"at"`
	Until float64 `json:"until"`
	Kind  string  `json:"kind"`
	Label string  `json:"label"`
}
