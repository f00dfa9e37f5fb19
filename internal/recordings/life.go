package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.com/informers/internal/podlife"
)

// A lifeRecording is docs/data/life-kind.json or life-local.json.
type lifeRecording struct {
	Writes    []lifeWrite `json:"writes"`
	Who       []lifeWho   `json:"who"`
	Lives     []lifeCount `json:"lives"`
	Fields    []lifeField `json:"fields"`
	Timelines []timeline  `json:"timelines"`
}

// A lifeWrite is a row of the page's table: a version of the pod.
type lifeWrite struct {
	S             json.Number `json:"s"` // when the request arrived, in seconds after the create
	Component     string      `json:"component"`
	Request       string      `json:"request"`
	ManagedFields string      `json:"managedFields"` // the manager whose entry it changed
	Changed       string      `json:"changed"`       // what explains the change, and the number of other fields
	Handler       string      `json:"handler"`
}

// A lifeWho is a component and its names in requests.
type lifeWho struct {
	Component string `json:"component"`
	User      string `json:"user"`
	UserAgent string `json:"userAgent"`
}

// A lifeCount summarizes the writes to one pod on the same cluster. The last one is the
// pod of the table.
type lifeCount struct {
	Pod           int    `json:"pod"`
	Updates       int    `json:"updates"`
	Writes        string `json:"writes"`         // by component
	SchedulerSaid string `json:"scheduler_said"` // why the scheduler could not bind the pod
}

// A lifeField is a change of one field, not shortened.
type lifeField struct {
	S         json.Number `json:"s"`
	Component string      `json:"component"`
	Path      string      `json:"path"`
	Old       string      `json:"old"`
	New       string      `json:"new"`
}

// life records every write to a pod from its create until it is gone, of five pods, one
// after another.
func (r *recorder) life(ctx context.Context) (any, error) {
	var lives []lifeCount
	var last *podlife.Life
	for i := range 5 {
		var err error
		if last, err = podlife.Live(ctx, r.cluster); err != nil {
			return nil, err
		}
		lives = append(lives, count(i+1, last))
	}
	// A node's name contains the cluster's random name.
	for i := range last.Writes {
		w := &last.Writes[i]
		w.Request.User = strings.ReplaceAll(w.Request.User, r.cluster.Name+"-", "")
		for j, change := range w.Changes {
			w.Changes[j].Old = strings.ReplaceAll(change.Old, r.cluster.Name+"-", "")
			w.Changes[j].New = strings.ReplaceAll(change.New, r.cluster.Name+"-", "")
		}
	}
	recording := tell(last, r.cluster.Which)
	recording.Lives = lives
	return recording, nil
}

func count(pod int, l *podlife.Life) lifeCount {
	c := lifeCount{Pod: pod}
	for _, call := range l.Calls {
		if call.Kind == "Update" {
			c.Updates++
		}
	}
	writes := map[string]int{}
	for i := range l.Writes {
		writes[l.Writes[i].Component()]++
		for _, condition := range l.Writes[i].New.Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Message != "" {
				c.SchedulerSaid = condition.Message
			}
		}
	}
	var parts []string
	for _, component := range slices.Sorted(maps.Keys(writes)) {
		parts = append(parts, fmt.Sprintf("%s %d", component, writes[component]))
	}
	c.Writes = strings.Join(parts, ", ")
	return c
}

// tell makes the tables and the picture of a life.
func tell(l *podlife.Life, which string) (r lifeRecording) {
	start := l.Writes[0].Request.Time
	since := func(t time.Time) float64 { return max(0, round(t.Sub(start).Seconds(), 1000)) }
	line := timeline{Name: "life-" + which, Title: "The writes to one pod on " + which, Unit: "s"}
	note := func(name string, e event) {
		i := slices.IndexFunc(line.Lanes, func(l *lane) bool { return l.Name == name })
		if i < 0 {
			i = len(line.Lanes)
			line.Lanes = append(line.Lanes, &lane{Name: name})
		}
		line.Lanes[i].Events = append(line.Lanes[i].Events, e)
	}
	var wrote, called []string
	for i := range l.Writes {
		w := &l.Writes[i]
		at, component := since(w.Request.Time), w.Component()
		s := json.Number(fmt.Sprintf("%.3f", at))
		r.Writes = append(r.Writes, lifeWrite{
			S: s, Component: component, Request: w.Verb(), ManagedFields: managers(w.Managers),
			Changed: changed(w), Handler: handlers(l.Calls, w.New.ResourceVersion),
		})
		agent, _, _ := strings.Cut(w.Request.UserAgent, " ") // the rest describes the build
		if who := (lifeWho{component, w.Request.User, agent}); !slices.Contains(r.Who, who) {
			r.Who = append(r.Who, who)
		}
		for _, change := range w.Changes {
			r.Fields = append(r.Fields, lifeField{s, component, change.Path, change.Old, change.New})
		}
		if !w.Removed { // the removal is of the request before
			note(component, event{At: at, Kind: kind(w)})
			wrote = append(wrote, fmt.Sprintf("%s: %s at %.2f s", component, kind(w), at))
		}
	}
	for _, call := range l.Calls {
		at := since(call.At)
		note("handler", event{At: at, Kind: call.Kind})
		called = append(called, fmt.Sprintf("%s at %.2f s", call.Kind, at))
		line.End = math.Ceil(at*2) / 2
	}
	line.Alt = fmt.Sprintf("Requests that wrote the pod. %s. Calls of the handler. %s.",
		strings.Join(wrote, ", "), strings.Join(called, ", "))
	r.Timelines = []timeline{line}
	return r
}

// kind names a write in the picture.
func kind(w *podlife.Write) string {
	switch {
	case w.Old == nil:
		return "create"
	case w.Binds():
		return "bind"
	case w.Request.Verb == "delete":
		return "delete request"
	default:
		return "status"
	}
}

func managers(entries []metav1.ManagedFieldsEntry) string {
	var names []string
	for _, e := range entries {
		name := e.Manager + ", " + string(e.Operation)
		if e.Subresource != "" {
			name += " of " + e.Subresource
		}
		names = append(names, name)
	}
	if names == nil {
		return "silent"
	}
	return strings.Join(names, "; ")
}

// handlers returns the calls with a resourceVersion.
func handlers(calls []podlife.Call, version string) string {
	var names []string
	for _, call := range calls {
		switch {
		case call.New != version:
		case call.Old == "":
			names = append(names, call.Kind+" "+call.New)
		default:
			names = append(names, call.Kind+" "+call.Old+" → "+call.New)
		}
	}
	return strings.Join(names, ", ")
}

// told holds the fields that the table names. The others are in fields.
var told = regexp.MustCompile(`^(spec\.nodeName|status\.phase|status\.podIP|` +
	`status\.conditions\[\w+\]\.status|metadata\.(deletion\w+|generation)|` +
	`status\.containerStatuses\[\w+\]\.started|status\.observedGeneration)$`)

func changed(w *podlife.Write) string {
	if w.Removed {
		return "gone"
	}
	if w.Old == nil {
		return fmt.Sprintf("the pod: %d fields", len(w.Changes))
	}
	var parts []string
	for _, change := range w.Changes {
		if told.MatchString(change.Path) {
			parts = append(parts, shortly(change))
		}
	}
	if more := len(w.Changes) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, "\n")
}

var (
	condition = regexp.MustCompile(`^status\.conditions\[(\w+)\]\.status$`)
	moment    = regexp.MustCompile(`\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)Z`)
)

func shortly(change podlife.Change) string {
	path := condition.ReplaceAllString(change.Path, "$1")
	path = path[strings.LastIndex(path, ".")+1:]
	now := change.New
	if change.Old != "" {
		now = change.Old + " → " + now
	}
	return path + " " + moment.ReplaceAllString(now, "$1")
}
