package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Request is a request for pods that reached the API server.
type Request struct {
	Verb        string // such as "list" or "watch"
	User        string
	UserAgent   string
	URI         string    // path and query
	Namespace   string    // "" for all namespaces
	Name        string    // of the pod; "" for a list or a watch of many
	Subresource string    // such as "status"
	Stage       string    // "ResponseComplete", "ResponseStarted" for a watch that still runs, or "Panic"
	Code        int       // the HTTP status of the answer
	Time        time.Time // when it arrived
	Sent        string    // the body, in JSON, where cluster/audit.yaml asks for it
	Answer      string    // the body of the answer, in the same way
}

// Audit returns the requests for pods that the API server has answered, or started
// to answer, since the cluster was created, in the order in which they arrived. The
// log drops the oldest requests when it exceeds 200 MB. Audit cannot read the log of
// a current cluster and returns errors.ErrUnsupported.
func (c *Cluster) Audit(ctx context.Context) ([]Request, error) {
	var log []byte
	err := errors.ErrUnsupported
	switch c.Which {
	case "kind":
		log, err = c.auditKind(ctx)
	case "local":
		log, err = c.auditLocal()
	}
	if err != nil {
		return nil, fmt.Errorf("the audit log of the %s cluster: %w", c.Which, err)
	}
	return requests(log)
}

// requests decodes events of audit.k8s.io/v1, one per line. A watch has an event when
// it starts and one when it ends, but counts as one request.
func requests(log []byte) ([]Request, error) {
	type event struct {
		AuditID                  string
		Stage, Verb, RequestURI  string
		UserAgent                string
		User                     struct{ Username string }
		ObjectRef                struct{ Namespace, Name, Subresource string }
		ResponseStatus           struct{ Code int }
		RequestReceivedTimestamp time.Time
		RequestObject            json.RawMessage
		ResponseObject           json.RawMessage
	}
	var all []Request
	index := map[string]int{}
	for line := range bytes.Lines(log) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // still being written
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("decode %q: %w", line, err)
		}
		r := Request{
			Verb: e.Verb, User: e.User.Username, UserAgent: e.UserAgent, URI: e.RequestURI,
			Namespace: e.ObjectRef.Namespace, Name: e.ObjectRef.Name, Subresource: e.ObjectRef.Subresource,
			Stage: e.Stage, Code: e.ResponseStatus.Code, Time: e.RequestReceivedTimestamp,
			Sent: string(e.RequestObject), Answer: string(e.ResponseObject),
		}
		if i, ok := index[e.AuditID]; ok {
			all[i] = r
			continue
		}
		index[e.AuditID] = len(all)
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b Request) int { return a.Time.Compare(b.Time) })
	return all, nil
}
