package exercise

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"example.com/informers/exercises/internal/server"
)

func TestCosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := server.New(server.Pod("db", "1"), server.Pod("web", "2"), server.Pod("job", "3"))
		var calls atomic.Int32 // for db
		var known atomic.Int64 // when the last price was known
		begin := time.Now()
		price := func(pod *corev1.Pod) (int, error) {
			select {
			case <-time.After(time.Second): // virtual, like all times here
			case <-t.Context().Done():
			}
			if pod.Name == "db" && calls.Add(1) == 1 {
				return 0, errors.New("try again later")
			}
			known.Store(int64(time.Since(begin)))
			return map[string]int{"db": 10, "web": 20, "job": 30, "new": 40}[pod.Name], nil
		}
		costs, err := NewCosts(t.Context(), api, price)
		if err != nil {
			t.Fatal(err)
		}
		get := func(path string) (int, string) {
			synctest.Wait()
			answer := httptest.NewRecorder()
			costs.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
			return answer.Code, answer.Body.String()
		}

		synctest.Wait()
		if api.Watch == nil {
			t.Fatal("the API server got no request for pods.")
		}
		api.Watch.Delete(server.Pod("job", "4")) // before a worker got to it
		ready := func() bool { code, _ := get("/readyz"); return code == http.StatusOK }
		for !ready() && time.Since(begin) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		took := time.Since(begin)
		_, total := get("/total")
		switch {
		case !ready():
			t.Fatalf(`GET /readyz did not answer 200 within a minute, although GET /total answers %s.
db and web have a price. job was deleted while its key was in the queue: the work for it
is done when the worker finds that the pod is gone.`, total)
		case total != "30" && calls.Load() > 0:
			t.Fatalf(`GET /readyz answered 200 after %s, and then GET /total answered %s, want 30 for db and web.
The price service failed the first time it was asked for db, and the worker tries again. Until
db has a price, its work is not done, even if the queue is empty: Len does not count a key that
a worker has, or one that waits for its next try.`, took, total)
		case total != "30":
			t.Fatalf(`GET /readyz answered 200 after %s, and then GET /total answered %s, want 30 for db and web.
The load balancer believes the first answer, and users get the second one. HasSynced of a
registration means that the handler has returned for each pod of the initial state. This handler
only puts a key into the queue; the worker has not done the work yet.`, took, total)
		case took > time.Duration(known.Load())+time.Second:
			t.Fatalf(`the last price was known after %s, but GET /readyz answered 200 only after %s.
How long the work takes depends on the pods. A fixed time is too long here, and too short in a
larger cluster.`, time.Duration(known.Load()).Round(100*time.Millisecond), took)
		}

		api.Watch.Add(server.Pod("new", "5"))
		if !ready() {
			t.Fatal(`this replica was ready, then a pod was created, and now GET /readyz does not answer 200.
Every replica sees the new pod at the same time, so the load balancer has no replica left to send
requests to. A total without the newest pod is better than no answer.`)
		}
		time.Sleep(5 * time.Second)
		if _, total := get("/total"); total != "70" {
			t.Fatalf("the new pod costs 40, so all pods cost 70, but GET /total answers %s.", total)
		}
	})
}
