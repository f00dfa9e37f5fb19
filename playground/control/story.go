package control

import (
	"encoding/json"
	"slices"
	"strings"

	"example.com/informers/playground/engine"
)

// A Story is a script that the page plays. testdata has those of the page, with what a run in the browser told.
type Story struct {
	Script []At
	Until  float64             // milliseconds
	Told   map[string][]string // see Told
}

// At is a command and its time.
type At struct {
	Time float64 // milliseconds
	Command
}

// UnmarshalJSON reads what the page writes: [time, command].
func (a *At) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&a.Time, &a.Command})
}

// MarshalJSON writes the same.
func (a At) MarshalJSON() ([]byte, error) { return json.Marshal([]any{a.Time, a.Command}) }

// Told returns what is the same in each run of a story, on each server: the kinds of calls that a handler gets for
// a pod, in order, and what the worker does with its key up to the first success. The keys are stage, handler and
// name of the pod. Several equal kinds in a row are one, because Kubernetes does not guarantee how many times a
// pod is written.
func Told(events []engine.Event) map[string][]string {
	told := map[string][]string{}
	for _, e := range events {
		if e.Stage != engine.Handler && e.Stage != engine.Work || e.Kind == "returns" || e.Stage == engine.Work && e.Kind == "Add" {
			continue
		}
		about := strings.Join(strings.Fields(string(e.Stage)+" "+e.Handler+" "+e.Key[strings.Index(e.Key, "/")+1:]), " ")
		kinds := told[about]
		if n := len(kinds); n == 0 || kinds[n-1] != e.Kind && !slices.Contains(kinds, "Done") {
			told[about] = append(kinds, e.Kind)
		}
	}
	return told
}
