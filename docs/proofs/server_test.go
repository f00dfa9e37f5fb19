// Package proofs holds what the pages of docs say to a run, without a cluster: each
// test is named for its sentence. What needs a cluster is proved in e2e.
package proofs

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

var update = flag.Bool("update", false, "write what the pages show anew")

const root = "../.."

// A server is a fake clientset of which the test decides each answer: what a list
// returns, and each event of the watch that follows it. So a test can relist.
type server struct {
	*fake.Clientset
	pods  []*corev1.Pod      // the next list
	watch *watch.FakeWatcher // the newest watch
}

func serve(pods ...*corev1.Pod) *server {
	s := &server{Clientset: fake.NewClientset(), pods: pods}
	s.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "100"}}
		for _, pod := range s.pods {
			list.Items = append(list.Items, *pod.DeepCopy())
		}
		return true, list, nil
	})
	s.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		s.watch = watch.NewFake()
		return true, s.watch, nil
	})
	return s
}

// expire ends the watch as the API server does when its events are gone: 410. It
// returns when the reflector has listed again.
func (s *server) expire() {
	s.watch.Error(&apierrors.NewResourceExpired("too old resource version").ErrStatus)
	time.Sleep(time.Minute) // virtual, and as long as a back-off can be
	synctest.Wait()
}

// requests are the verbs of what was asked of the server, in order.
func (s *server) requests() (verbs []string) {
	for _, action := range s.Actions() {
		verbs = append(verbs, action.GetVerb())
	}
	return verbs
}

// pod has a resourceVersion, which the fake clientset does not set.
func pod(name, resourceVersion string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: resourceVersion}}
}

// A story is an informer of pods in virtual time, and what its handler was called with.
type story struct {
	*server
	context.Context
	factory  informers.SharedInformerFactory
	informer corev1informers.PodIndexInformer
	handler  cache.ResourceEventHandlerRegistration
	begin    time.Time
	calls    []string
}

// tell starts an informer with a handler in a bubble of virtual time, lets it fill its
// store, and acts.
func tell(t *testing.T, s *server, resync time.Duration, act func(t *testing.T, s *story), options ...informers.SharedInformerOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		factory := informers.NewSharedInformerFactoryWithOptions(s, resync, options...)
		story := &story{
			server: s, Context: ctx, begin: time.Now(),
			factory: factory, informer: factory.Core().V1().Pods().TypedInformer(),
		}
		story.handler = story.add(t, story.log)
		factory.StartWithContext(ctx)
		t.Cleanup(factory.Shutdown)
		synctest.Wait()
		act(t, story)
	})
}

// log keeps the calls. They come one at a time, and are read after synctest.Wait.
func (s *story) log(call string) {
	s.calls = append(s.calls, fmt.Sprintf("%3.0f s  %s", time.Since(s.begin).Seconds(), call))
}

// add registers a handler that tells log what it is called with.
func (s *story) add(t *testing.T, log func(string), options ...cache.HandlerOptions) cache.ResourceEventHandlerRegistration {
	t.Helper()
	handler, err := s.informer.AddTypedEventHandler(corev1informers.PodDetailedHandlerFuncs{
		AddFunc: func(pod *corev1.Pod, isInInitialList bool) {
			log(fmt.Sprintf("Add %s: %s, in the initial list: %t", pod.Name, pod.ResourceVersion, isInInitialList))
		},
		UpdateFunc: func(old, pod *corev1.Pod) {
			log(fmt.Sprintf("Update %s: %s → %s, same pointer: %t", pod.Name, old.ResourceVersion, pod.ResourceVersion, old == pod))
		},
		DeleteFunc: func(pod corev1informers.DeletedPod) {
			log(fmt.Sprintf("Delete %s: tombstone: %t", pod.GetName(), pod.FinalStateUnknown != nil))
		},
	}, options...)
	if err != nil {
		t.Fatal(err)
	}
	return handler
}
