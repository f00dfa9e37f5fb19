// Package server has a fake clientset that can make an informer list again, and a transport
// to a server that knows selectors and can send only metadata.
package server

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// A Server is a fake clientset whose answers the test chooses: the result of each list of
// pods, and each event of the watch that follows it.
type Server struct {
	*fake.Clientset
	Watch *watch.FakeWatcher // the newest watch of pods
	pods  []*corev1.Pod      // what the next list returns
}

// New returns a server that has these pods.
func New(pods ...*corev1.Pod) *Server {
	s := &Server{Clientset: fake.NewClientset(), pods: pods}
	s.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "100"}}
		for _, pod := range s.pods {
			list.Items = append(list.Items, *pod.DeepCopy())
		}
		return true, list, nil
	})
	s.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		s.Watch = watch.NewFake()
		return true, s.Watch, nil
	})
	return s
}

// Relist ends the watch with 410 Expired, as the API server does when it no longer has the
// events that the informer missed. It returns when the informer has listed these pods.
func (s *Server) Relist(pods ...*corev1.Pod) {
	s.pods = pods
	s.Watch.Error(&apierrors.NewResourceExpired("too old resource version").ErrStatus)
	time.Sleep(time.Minute) // virtual; no back-off is longer
	synctest.Wait()
}

// SlowLists makes each list take 100 ms of virtual time, so that a program that does not
// wait for it always reads an empty store. At its end the test waits for unfinished lists.
func SlowLists(t *testing.T, client *fake.Clientset) {
	const delay = 100 * time.Millisecond
	t.Cleanup(func() { time.Sleep(delay) }) // virtual time stops when the test ends
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		// The clientset holds its lock while it calls a reactor, and virtual time stands
		// still while a goroutine waits for a lock.
		client.Unlock()
		defer client.Lock()
		time.Sleep(delay)
		return false, nil, nil
	})
}

// A WatchList is a client whose API server sends the initial state as events of a watch, as
// today's API servers do. The fake clientset itself only knows lists.
type WatchList struct {
	kubernetes.Interface                    // without what says that the client is a fake
	Watch                *watch.FakeWatcher // the newest watch of pods
}

// NewWatchList returns a client of a server that has these pods.
func NewWatchList(pods ...*corev1.Pod) *WatchList {
	client := fake.NewClientset()
	s := &WatchList{Interface: struct{ kubernetes.Interface }{client}}
	client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		s.Watch = watch.NewFakeWithChanSize(len(pods)+1, false)
		for _, pod := range pods {
			s.Watch.Add(pod.DeepCopy())
		}
		s.Watch.Action(watch.Bookmark, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: "100", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}})
		return true, s.Watch, nil
	})
	return s
}

// Pod returns a pod with a resourceVersion, which the fake clientset does not set.
func Pod(name, resourceVersion string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, ResourceVersion: resourceVersion,
	}}
}
