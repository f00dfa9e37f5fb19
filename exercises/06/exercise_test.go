package exercise

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"example.com/informers/exercises/internal/server"
)

func TestAnnotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI(t)
		factory := informers.NewSharedInformerFactory(api, 0)
		lister := factory.Core().V1().Pods().Lister()
		t.Cleanup(factory.Shutdown) // t.Context is canceled before a Cleanup runs
		factory.StartWithContext(t.Context())
		synctest.Wait()

		web := cache.NewObjectName("default", "web")
		api.ClearActions()
		if err := Annotate(t.Context(), api, lister, web, "kept", "yes"); err != nil || len(api.Actions()) > 0 {
			t.Fatalf(`Annotate returned the error %v and sent %d requests, want neither.
The pod has this annotation already, and the informer's store shows that without a request.`,
				err, len(api.Actions()))
		}

		// Another client writes, and the informer does not know it yet.
		api.write(func(pod *corev1.Pod) { pod.Labels["owner"] = "kubelet" })

		err := Annotate(t.Context(), api, lister, web, "team", "blue")
		read := slices.ContainsFunc(api.Actions(), func(a clienttesting.Action) bool { return a.GetVerb() == "get" })
		if apierrors.IsConflict(err) && read {
			t.Fatalf(`another client wrote to default/web just before Annotate did, and Annotate failed:
%v
It had read the pod from the API server, not from the store. Another client can still write
between your read and your write. If that happens, read and write again.`, err)
		}
		if apierrors.IsConflict(err) {
			t.Fatalf(`another client wrote to default/web, and Annotate failed:
%v
An informer's store can be behind the API server. An Update carries the resourceVersion of the
pod that you read, and the server accepts it only if no one has written to the pod since.`, err)
		}
		if err != nil {
			t.Fatal(err)
		}
		pod := api.pod()
		if pod.Annotations["team"] != "blue" {
			t.Fatalf("the annotations are %v, want team=blue", pod.Annotations)
		}
		if pod.Labels["owner"] != "kubelet" {
			t.Fatalf(`the label owner=kubelet, which another client wrote, is gone: the labels are %v.
An Update writes the whole object. Without a resourceVersion the server does not compare, so
everything that others wrote since you read the pod is lost.`, pod.Labels)
		}
	})
}

// An api has one pod, web. It counts resourceVersions, and it refuses an update of an older
// version: the API server does that too, the fake clientset does not. Its watch is silent.
type api struct {
	*fake.Clientset
	*testing.T
}

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

func newAPI(t *testing.T) *api {
	web := server.Pod("web", "1")
	web.Labels = map[string]string{"app": "web"}
	web.Annotations = map[string]string{"kept": "yes"}
	a := &api{Clientset: fake.NewClientset(web), T: t}
	a.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		return true, watch.NewFake(), nil
	})
	busy := true
	a.PrependReactor("update", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if busy { // another client is faster, once
			a.write(func(pod *corev1.Pod) { pod.Labels["seen"] = "yes" })
			busy = false
		}
		update := action.(clienttesting.UpdateAction).GetObject().(*corev1.Pod)
		if v := update.ResourceVersion; v != "" && v != a.pod().ResourceVersion {
			return true, nil, apierrors.NewConflict(podsResource.GroupResource(), "web", errors.New(
				"the object has been modified; please apply your changes to the latest version and try again"))
		}
		a.write(func(pod *corev1.Pod) {
			version := pod.ResourceVersion
			update.DeepCopyInto(pod)
			pod.ResourceVersion = version
		})
		return true, a.pod(), nil
	})
	return a
}

// pod returns the pod as the server has it.
func (a *api) pod() *corev1.Pod {
	a.Helper()
	obj, err := a.Tracker().Get(podsResource, "default", "web")
	if err != nil {
		a.Fatal(err)
	}
	return obj.(*corev1.Pod)
}

// write changes the pod, and gives it the next resourceVersion.
func (a *api) write(change func(*corev1.Pod)) {
	a.Helper()
	pod := a.pod()
	change(pod)
	version, err := strconv.Atoi(pod.ResourceVersion)
	if err != nil {
		a.Fatal(err)
	}
	pod.ResourceVersion = strconv.Itoa(version + 1)
	if err := a.Tracker().Update(podsResource, pod, "default", metav1.UpdateOptions{}); err != nil {
		a.Fatal(err)
	}
}
