// Recordings makes the recordings for docs: it runs what a page describes, on a separate cluster, and
// writes what it observed to docs/data. make docs calls it.
//
//	go run ./internal/recordings resync wire
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

	"example.com/informers/internal/provider"
)

// A recording becomes docs/data/NAME.json. The result of record is encoded as a JSON object.
type recording struct {
	name, cluster string
	apiOnly       bool // the cluster runs no pods
	record        func(*recorder, context.Context) (any, error)
}

var recordings = []recording{
	{"costs", "local", true, (*recorder).costs},
	{"life-kind", "kind", false, (*recorder).life},
	{"life-local", "local", false, (*recorder).life},
	{"lister", "local", false, (*recorder).lister},
	{"resync", "local", false, (*recorder).resync},
	{"scale", "local", false, (*recorder).scale},
	{"synced", "local", false, (*recorder).synced},
	{"wire", "local", false, (*recorder).wire},
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
		fmt.Fprintf(os.Stderr, "recordings: %v\n", err)
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
	for _, name := range names {
		if !slices.Contains(all, name) {
			return fmt.Errorf("there is no recording %q; choose from %s", name, strings.Join(all, ", "))
		}
	}
	for _, name := range names {
		if err := recordings[slices.Index(all, name)].write(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// write makes a recording on a cluster that nothing else uses.
func (r recording) write(ctx context.Context) (err error) {
	cluster, err := provider.Open(ctx, provider.Options{
		Which: r.cluster, APIOnly: r.apiOnly, Prefix: "informers-record", Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close(context.WithoutCancel(ctx))) }()
	rec, err := newRecorder(cluster)
	if err != nil {
		return err
	}
	server, err := rec.client.Discovery().ServerVersionWithContext(ctx)
	if err != nil {
		return err
	}
	body, err := r.record(rec, ctx)
	if err != nil {
		return err
	}
	head, err := json.Marshal(recorded{
		Command:    "go run ./internal/recordings " + r.name,
		Machine:    fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH),
		Date:       time.Now().UTC().Format(time.DateOnly),
		Kubernetes: server.GitVersion,
		ClientGo:   clientGo(),
	})
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

// clientGo returns the version with which this program is built.
func clientGo() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "k8s.io/client-go" {
			return module.Version
		}
	}
	return ""
}
