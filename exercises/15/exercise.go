// Exercise 15: after 12-production. Run go test ./15 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// NewCosts returns the handler of a program with several replicas. GET /total answers what all
// pods cost, and GET /readyz whether the load balancer may send requests to this replica. The
// price of a pod comes from a service, which is slow and sometimes fails.
func NewCosts(ctx context.Context, client kubernetes.Interface, price func(*corev1.Pod) (int, error)) (http.Handler, error) {
	factory := informers.NewSharedInformerFactory(client, 0)
	pods, lister := factory.Core().V1().Pods().TypedInformer(), factory.Core().V1().Pods().Lister()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	handler, err := pods.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
		AddFunc: func(pod *corev1.Pod, _ bool) {
			queue.Add(cache.MetaObjectToName(pod))
		},
		DeleteFunc: func(pod corev1informers.DeletedPod) { queue.Add(pod.GetObjectName()) },
	})
	if err != nil {
		return nil, fmt.Errorf("add handlers: %w", err)
	}
	factory.StartWithContext(ctx)
	context.AfterFunc(ctx, queue.ShutDown)

	var prices sync.Map // a pod's name to its price
	go func() {
		for name, shutdown := queue.Get(); !shutdown; name, shutdown = queue.Get() {
			if pod, err := lister.Pods(name.Namespace).Get(name.Name); err != nil {
				prices.Delete(name) // the pod is gone
			} else if p, err := price(pod); err != nil {
				queue.AddRateLimited(name)
			} else {
				prices.Store(name, p)
				queue.Forget(name)
			}
			queue.Done(name)
		}
	}()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !handler.HasSynced() {
			http.Error(w, "not synced", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /total", func(w http.ResponseWriter, _ *http.Request) {
		total := 0
		prices.Range(func(_, p any) bool { total += p.(int); return true })
		fmt.Fprint(w, total)
	})
	return mux, nil
}
