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

	"example.com/informers/internal/clusters"
	podslife "example.com/informers/internal/life"
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
	Changed       string      `json:"changed"`       // the fields that explain the change, and the number of others
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

func count(pod int, l *podslife.Life) lifeCount {
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

// A lifeField is a change of one field, not shortened.
type lifeField struct {
	S         json.Number `json:"s"`
	Component string      `json:"component"`
	Path      string      `json:"path"`
	Old       string      `json:"old"`
	New       string      `json:"new"`
}

// lives is the number of pods, one after another.
const lives = 5

// life records every write to a pod from its create until it is gone.
func life(ctx context.Context, c *clusters.Cluster) (any, error) {
	var r lifeRecording
	var last *podslife.Life
	for i := range lives {
		var err error
		if last, err = podslife.Live(ctx, c); err != nil {
			return nil, err
		}
		r.Lives = append(r.Lives, count(i+1, last))
	}
	r.tell(last, c)
	return r, nil
}

// tell fills in the tables and the picture.
func (r *lifeRecording) tell(l *podslife.Life, c *clusters.Cluster) {
	start := l.Writes[0].Request.Time
	since := func(t time.Time) float64 { return max(0, math.Round(t.Sub(start).Seconds()*1000)/1000) }
	line := timeline{
		Name: "life-" + c.Which, Title: "The writes to one pod on " + c.Which, Unit: "s",
	}
	find := func(name string) *lane {
		for _, l := range line.Lanes {
			if l.Name == name {
				return l
			}
		}
		line.Lanes = append(line.Lanes, &lane{Name: name})
		return line.Lanes[len(line.Lanes)-1]
	}
	var story []string
	for i := range l.Writes {
		w := &l.Writes[i]
		at := since(w.Request.Time)
		s := json.Number(fmt.Sprintf("%.3f", at))
		component := w.Component()
		r.Writes = append(r.Writes, lifeWrite{
			S: s, Component: component, Request: w.Verb(), ManagedFields: managers(w.Managers),
			Changed: changed(w, c), Handler: handlers(l.Calls, w.New.ResourceVersion),
		})
		agent, _, _ := strings.Cut(w.Request.UserAgent, " ") // the rest describes the build
		who := lifeWho{component, nodeless(w.Request.User, c), agent}
		if !slices.Contains(r.Who, who) {
			r.Who = append(r.Who, who)
		}
		for _, change := range w.Changes {
			r.Fields = append(r.Fields, lifeField{s, component, change.Path,
				nodeless(change.Old, c), nodeless(change.New, c)})
		}
		if w.Removed {
			continue // the same request
		}
		kind := "status"
		switch {
		case w.Request.Verb == "create" && w.Old == nil:
			kind = "create"
		case w.Binds():
			kind = "bind"
		case w.Request.Verb == "delete":
			kind = "delete request"
		}
		find(component).Events = append(find(component).Events, event{At: at, Kind: kind})
		story = append(story, fmt.Sprintf("%s: %s at %.2f s", component, kind, at))
	}
	handler := find("handler")
	var said []string
	for _, call := range l.Calls {
		at := since(call.At)
		handler.Events = append(handler.Events, event{At: at, Kind: call.Kind})
		said = append(said, fmt.Sprintf("%s at %.2f s", call.Kind, at))
		line.End = math.Ceil(at*2) / 2
	}
	line.Alt = fmt.Sprintf("Requests that wrote the pod. %s. Calls of the handler. %s.",
		strings.Join(story, ", "), strings.Join(said, ", "))
	r.Timelines = []timeline{line}
}

// nodeless removes the cluster's random name from a node's name.
func nodeless(text string, c *clusters.Cluster) string {
	return strings.ReplaceAll(text, c.Name+"-", "")
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
func handlers(calls []podslife.Call, version string) string {
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

func changed(w *podslife.Write, c *clusters.Cluster) string {
	var parts []string
	for _, change := range w.Changes {
		if w.Old != nil && told.MatchString(change.Path) {
			parts = append(parts, shortly(change, c))
		}
	}
	switch more := len(w.Changes) - len(parts); {
	case w.Removed:
		return "gone"
	case w.Old == nil:
		return fmt.Sprintf("the pod: %d fields", more)
	case more > 0:
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, "\n")
}

var (
	condition = regexp.MustCompile(`^status\.conditions\[(\w+)\]\.status$`)
	moment    = regexp.MustCompile(`\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)Z`)
)

func shortly(change podslife.Change, c *clusters.Cluster) string {
	path := condition.ReplaceAllString(change.Path, "$1")
	path = path[strings.LastIndex(path, ".")+1:]
	old, now := nodeless(change.Old, c), nodeless(change.New, c)
	if old != "" {
		now = old + " → " + now
	}
	return path + " " + moment.ReplaceAllString(now, "$1")
}
