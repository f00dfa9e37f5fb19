package proofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// errorsHandled replaces the handlers of utilruntime.HandleError: one of them sleeps by a clock
// from outside the bubble. It returns where the messages are kept.
func errorsHandled(t *testing.T) *[]string {
	t.Helper()
	var messages []string
	handlers := utilruntime.ErrorHandlers
	t.Cleanup(func() { utilruntime.ErrorHandlers = handlers })
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{
		func(_ context.Context, _ error, msg string, _ ...any) { messages = append(messages, msg) },
	}
	return &messages
}

// failsFor is a transform that fails for pods whose name says so.
func failsFor(prefix string) informers.SharedInformerOption {
	return transform(func(pod *corev1.Pod) error {
		if strings.HasPrefix(pod.Name, prefix) {
			return errors.New("cannot transform " + pod.Name)
		}
		return nil
	})
}

func labeled(name string, version int) *corev1.Pod {
	pod := pod(name, version)
	pod.Labels = map[string]string{"team": "red"}
	return pod
}

// With WatchList an object of the initial state is transformed on its way into the reflector's
// temporary store, and again into the queue. An object of a LIST or a watch is transformed once.
func TestTransformRunsTwiceOnTheInitialState(t *testing.T) {
	for _, test := range []struct {
		name      string
		transform func(*corev1.Pod) string
		initial   string
	}{
		{"appends", func(pod *corev1.Pod) string { return pod.Labels["team"] + "-blue" }, "red-blue-blue"},
		{"sets", func(*corev1.Pod) string { return "red-blue" }, "red-blue"},
	} {
		option := transform(func(pod *corev1.Pod) error { pod.Labels["team"] = test.transform(pod); return nil })
		act := func(t *testing.T, s *scene) {
			s.handle(t, corev1informers.PodHandlerFuncs{AddFunc: func(pod *corev1.Pod) {
				equal(t, test.name+", first in the store", pod == s.get(t, pod.Name), true)
			}})
			s.start(t)
			if s.server == nil {
				equal(t, test.name+", from a LIST", s.get(t, "initial").Labels["team"], "red-blue")
				return
			}
			s.put(labeled("new", 101))
			synctest.Wait()
			equal(t, test.name+", initial", s.get(t, "initial").Labels["team"], test.initial)
			equal(t, test.name+", new", s.get(t, "new").Labels["team"], "red-blue")
		}
		play(t, serve(labeled("initial", 90)), act, option)
		playWith(t, fake.NewClientset(labeled("initial", 90)), act, option) // without WatchList
	}
}

// A transform of an informer is called with objects of the server, and with those alone: no
// tombstone, no bookmark, and nothing at a resync.
func TestTransformSeesNoTombstone(t *testing.T) {
	var seen []string
	option := informers.WithTransform(func(obj any) (any, error) {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			t.Errorf("a %T", obj)
			return obj, nil
		}
		seen = append(seen, pod.Name+" "+pod.ResourceVersion)
		pod.Labels = map[string]string{"transformed": "yes"}
		return pod, nil
	})
	play(t, serve(pod("kept", 90), pod("missed", 91), pod("seen", 92)), func(t *testing.T, s *scene) {
		var deleted []corev1informers.DeletedPod
		s.handle(t, corev1informers.PodHandlerFuncs{
			DeleteFunc: func(pod corev1informers.DeletedPod) { deleted = append(deleted, pod) },
		})
		s.start(t)
		seen = nil
		s.bookmark(100, false)
		s.remove(pod("seen", 101))
		s.pass(time.Hour) // with resyncs
		equal(t, "of a delete it sees the last state", seen, "[seen 101]")
		seen = nil
		s.replace(pod("kept", 90))
		s.relist()
		equal(t, "of a relist it sees what is there, twice", seen, "[kept 90 kept 90]")
		equal(t, "deletes", len(deleted), 2)
		for i, tombstone := range []bool{false, true} {
			equal(t, "tombstone", deleted[i].FinalStateUnknown != nil, tombstone)
			equal(t, deleted[i].GetName(), deleted[i].OptionalObj.Labels["transformed"], "yes")
		}
	}, option, resync(30*time.Second))
}

func TestTransformErrorLosesTheObject(t *testing.T) {
	messages := errorsHandled(t)
	play(t, serve(pod("bad-initial", 90), pod("good", 91)), func(t *testing.T, s *scene) {
		s.start(t)
		s.put(pod("bad-new", 101), pod("good", 102))
		synctest.Wait()
		equal(t, "synced", s.pods.HasSynced(), true)
		equal(t, "stored", s.keys(), "[default/good]")
		equal(t, "goes on", s.stored("good"), "102")
		equal(t, "told", len(s.told), 0)
		for _, message := range *messages {
			equal(t, "logged", message, "Unable to add watch event object to store")
		}
		if len(*messages) < 2 {
			t.Errorf("logged %q", *messages)
		}
	}, failsFor("bad"))
}

// With LIST one object that cannot be transformed keeps all others out of the store. The fake
// clientset has no WatchList.
func TestTransformErrorWithListStoresNothing(t *testing.T) {
	client := fake.NewClientset(pod("bad", 90), pod("good", 91))
	playWith(t, client, func(t *testing.T, s *scene) {
		s.start(t)
		s.pass(10 * time.Minute)
		equal(t, "stored", s.keys(), "[]")
		equal(t, "synced", s.pods.HasSynced(), false)
		equal(t, "told at each try", len(s.told), len(client.Actions()))
		equal(t, "told of", s.told[0], "unable to sync list result: cannot transform bad")

		err := client.CoreV1().Pods("default").Delete(t.Context(), "bad", metav1.DeleteOptions{})
		equal(t, "error", err, nil)
		s.pass(time.Minute)
		equal(t, "synced without it", s.pods.HasSynced(), true)
	}, failsFor("bad"))
}

// After the sync a transform's error loses one event: the store keeps what it had.
func TestTransformErrorKeepsTheOldState(t *testing.T) {
	errorsHandled(t)
	option := transform(func(pod *corev1.Pod) error {
		if pod.ResourceVersion == "101" || pod.ResourceVersion == "102" {
			return errors.New("cannot transform")
		}
		return nil
	})
	withWatchList(t, func(t *testing.T, _ bool) {
		play(t, serve(pod("changed", 90), pod("deleted", 91)), func(t *testing.T, s *scene) {
			s.start(t)
			s.put(pod("changed", 101))
			s.remove(pod("deleted", 102))
			synctest.Wait()
			equal(t, "changed, as before", s.stored("changed"), "90")
			equal(t, "deleted, still there", s.stored("deleted"), "91")
			equal(t, "told", len(s.told), 0)
			s.put(pod("changed", 103))
			synctest.Wait()
			equal(t, "changed, by the next event", s.stored("changed"), "103")
		}, option)
	})
}

// With WatchList a relist takes an object that cannot be transformed for one that is gone.
func TestTransformErrorInARelistIsADelete(t *testing.T) {
	errorsHandled(t)
	fail := false
	option := transform(func(*corev1.Pod) error {
		if fail {
			return errors.New("cannot transform")
		}
		return nil
	})
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.record(t)
		s.start(t)
		fail = true
		s.relist()
		equal(t, "calls", s.calls, "[Add web 90 Delete web tombstone=true]")
	}, option)
}

// A transform that fails on what it has already transformed makes WatchList fall back to LIST.
func TestTransformThatFailsTheSecondTimeFallsBackToList(t *testing.T) {
	option := transform(func(pod *corev1.Pod) error {
		if pod.Labels["team"] == "" {
			return errors.New("no label team")
		}
		delete(pod.Labels, "team")
		return nil
	})
	play(t, serve(labeled("web", 90)), func(t *testing.T, s *scene) {
		s.start(t)
		equal(t, "requests", s.verbs(), "[watch list watch]")
		equal(t, "synced by the list", s.pods.HasSynced(), true)
		equal(t, "stored", s.stored("web"), "90")
		equal(t, "told", len(s.told), 0)
		s.end(io.EOF) // client-go leaves the first watch open
	}, option)
}

// client-go does not look at what a transform returns, nor at the errors that follow from it.
func TestTransformThatReturnsNilEmptiesTheStore(t *testing.T) {
	messages := errorsHandled(t)
	option := informers.WithTransform(func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok && pod.Name != "unwanted" {
			return pod, nil
		}
		return nil, nil // wrong: to drop an object, use a selector
	})
	withWatchList(t, func(t *testing.T, _ bool) {
		play(t, serve(pod("unwanted", 90), pod("wanted", 91)), func(t *testing.T, s *scene) {
			ctx, logged := logs(t, 0)
			s.startWith(ctx, t)
			equal(t, "synced", s.pods.HasSynced(), true)
			equal(t, "stored", s.keys(), "[]")
			s.put(pod("wanted-too", 101))
			synctest.Wait()
			equal(t, "stored then", s.keys(), "[default/wanted-too]")
			equal(t, "told", len(s.told), 0)
			equal(t, "logged", logged.String()+strings.Join(*messages, ""), "")
		}, option)
	})
}

// An informer stores whatever has metadata. Typed code finds out when it reads, and a typed
// handler crashes the program: see TestPanicEndsTheProgram.
func TestTransformToAnotherTypePanicsInTypedCode(t *testing.T) {
	option := informers.WithTransform(func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok {
			return &metav1.PartialObjectMetadata{ObjectMeta: pod.ObjectMeta}, nil
		}
		return obj, nil // the second time
	})
	play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
		s.start(t)
		equal(t, "synced", s.pods.HasSynced(), true)
		equal(t, "stored", s.keys(), "[default/web]")
		defer func() {
			equal(t, "panic", strings.Contains(fmt.Sprint(recover()),
				"interface conversion: interface {} is *v1.PartialObjectMetadata, not *v1.Pod"), true)
		}()
		_, err := s.lister.List(labels.Everything())
		t.Errorf("no panic, error %v", err)
	}, option)
}

// A handler that is not due when a pod is written gets no call if a transform drops the
// resourceVersion: the write looks like a resync, as each does over the fake clientset.
func TestTransformMustKeepTheResourceVersion(t *testing.T) {
	for drops, want := range map[bool]int{false: 1, true: 0} {
		option := transform(func(pod *corev1.Pod) error {
			if drops {
				pod.ResourceVersion = ""
			}
			return nil
		})
		play(t, serve(pod("web", 90)), func(t *testing.T, s *scene) {
			calls := 0
			s.handle(t, corev1informers.PodHandlerFuncs{UpdateFunc: func(_, _ *corev1.Pod) { calls++ }},
				every(45*time.Second))
			s.start(t)
			s.pass(40 * time.Second)
			s.put(pod("web", 101))
			synctest.Wait()
			equal(t, fmt.Sprintf("calls, drops %t", drops), calls, want)
		}, option, resync(30*time.Second))
	}
}
