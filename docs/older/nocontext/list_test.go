//go:build v0.17

package nocontext

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// TestResyncDidNotList: a resync did not list when the comment on NewReflector said it did.
func TestResyncDidNotList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
		client := fake.NewSimpleClientset(web)
		factory := informers.NewSharedInformerFactory(client, 30*time.Second)
		updates := 0
		factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			UpdateFunc: func(_, _ interface{}) { updates++ },
		})
		stop := make(chan struct{})
		factory.Start(stop)
		time.Sleep(5 * time.Minute)
		close(stop)
		synctest.Wait()
		if updates < 5 {
			t.Errorf("%d resyncs", updates)
		}
		lists := 0
		for _, action := range client.Actions() {
			if action.GetVerb() == "list" {
				lists++
			}
		}
		if lists != 1 {
			t.Errorf("%d lists", lists)
		}
	})
}
