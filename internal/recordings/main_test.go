package main

import (
	"strings"
	"testing"
)

// A wrong name is reported before the first recording, because a recording takes minutes.
func TestNames(t *testing.T) {
	for _, tt := range []struct {
		names []string
		want  string
	}{
		{nil, "name a recording: costs, life-kind, life-local, lister"},
		{[]string{"wire", "resynk"}, `there is no recording "resynk"; choose from costs`},
	} {
		if err := run(t.Context(), tt.names); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("record %v: %v, want %s", tt.names, err, tt.want)
		}
	}
}

func TestFrames(t *testing.T) {
	frames := frames([]byte("\x00ADDED\x00pod\x00BOOKMARK\x00\x00MODIFIED"))
	if want := "ADDED BOOKMARK MODIFIED"; frames != want {
		t.Errorf("%s, want %s", frames, want)
	}
}
