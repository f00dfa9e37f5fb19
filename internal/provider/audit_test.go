package provider

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestRequests(t *testing.T) {
	event := func(id, stage, verb, uri string, second int) string {
		return fmt.Sprintf(`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":%q,"stage":%q,"requestURI":%q,"verb":%q,`+
			`"user":{"username":"kwok-admin","groups":["system:masters"]},"sourceIPs":["127.0.0.1"],"userAgent":"kubectl/v1.37.2",`+
			`"objectRef":{"resource":"pods","namespace":"default","name":"web","apiVersion":"v1","subresource":"status"},`+
			`"responseStatus":{"metadata":{},"code":200},"requestObject":{"spec":{}},"responseObject":{"kind":"Pod"},"requestReceivedTimestamp":"2026-11-24T02:22:%02d.500000Z",`+
			`"stageTimestamp":"2026-11-24T02:23:00.000000Z","annotations":{}}`+"\n", id, stage, uri, verb, second)
	}
	log := event("a", "ResponseStarted", "watch", "/w?watch=true", 1) +
		event("c", "ResponseComplete", "patch", "/c", 3) +
		event("b", "ResponseComplete", "list", "/b", 2) +
		event("d", "ResponseStarted", "watch", "/d", 4) +
		event("a", "ResponseComplete", "watch", "/w?watch=true", 1)
	request := func(stage, verb, uri string, second int) Request {
		return Request{Verb: verb, User: "kwok-admin", UserAgent: "kubectl/v1.37.2", URI: uri, Namespace: "default", Name: "web", Subresource: "status",
			Stage: stage, Code: 200, Time: time.Date(2026, 11, 24, 2, 22, second, 5e8, time.UTC),
			Sent: `{"spec":{}}`, Answer: `{"kind":"Pod"}`}
	}
	want := []Request{
		request("ResponseComplete", "watch", "/w?watch=true", 1),
		request("ResponseComplete", "list", "/b", 2),
		request("ResponseComplete", "patch", "/c", 3),
		request("ResponseStarted", "watch", "/d", 4),
	}
	half := event("e", "ResponseComplete", "list", "/e", 5)
	for _, end := range []string{"", half[:len(half)/2], half[:len(half)-1]} {
		got, err := requests([]byte(log + end))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("with the incomplete line %q:\n%+v, %v\nwant:\n%+v", end, got, err, want)
		}
	}
	if got, err := requests([]byte("no event\n" + log)); err == nil {
		t.Errorf("a line that is not an event is decoded as %+v", got)
	}
}
