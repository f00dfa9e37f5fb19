package proofs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/version"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	corev1informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	listerscorev1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// What docs/older-code.md shows as today's form, next to the old one of docs/older.

// todayConfig finds the cluster as kubectl does; a path or a context that is empty is the default.
func todayConfig(path, kubecontext string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	overrides := &clientcmd.ConfigOverrides{CurrentContext: kubecontext}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
}

func todayStop(run func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx) // until ctx ends
}

func todayStart(ctx context.Context, factory informers.SharedInformerFactory) error {
	factory.StartWithContext(ctx)
	return factory.WaitForCacheSyncWithContext(ctx).AsError()
}

func todayLister(
	ctx context.Context, factory informers.SharedInformerFactory,
) (listerscorev1.PodLister, error) {
	lister := factory.Core().V1().Pods().Lister() // before the start
	factory.StartWithContext(ctx)
	return lister, factory.WaitForCacheSyncWithContext(ctx).AsError()
}

func todayRun(ctx context.Context, informer cache.SharedIndexInformer) {
	go informer.RunWithContext(ctx)
}

func todayHandlers(print func(string)) corev1informers.PodHandlerFuncs {
	return corev1informers.PodHandlerFuncs{
		AddFunc: func(pod *corev1.Pod) {
			print("added " + pod.Name)
		},
		DeleteFunc: func(pod corev1informers.DeletedPod) {
			print("deleted " + pod.GetName())
		},
	}
}

func todayDeletedKey(pod corev1informers.DeletedPod) cache.ObjectName {
	return pod.GetObjectName()
}

func todayAddHandlers(
	pods corev1informers.PodIndexInformer, handlers corev1informers.PodHandlerFuncs,
) (cache.ResourceEventHandlerRegistration, error) {
	handler, err := pods.AddTypedEventHandler(handlers)
	if err != nil {
		return nil, fmt.Errorf("add handlers: %w", err)
	}
	return handler, nil
}

func todayWait(ctx context.Context, handler cache.ResourceEventHandlerRegistration) error {
	if !cache.WaitFor(ctx, "", handler.HasSyncedChecker()) {
		return fmt.Errorf("handlers are not synced: %w", context.Cause(ctx))
	}
	return nil
}

func todayOnWatchError(pods corev1informers.PodIndexInformer) error {
	return pods.SetWatchErrorHandlerWithContext(
		func(ctx context.Context, _ *cache.Reflector, err error) {
			klog.FromContext(ctx).Error(err, "Watch failed")
		})
}

func todayShutdown(cancel context.CancelFunc, factory informers.SharedInformerFactory) {
	cancel()
	factory.Shutdown() // returns when no handler runs any more
}

func todayFactory(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactory(client, 0)
}

func todayFiltered(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace("default"),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) {
			options.LabelSelector = "app=web"
		}))
}

func todayInformer(factory informers.SharedInformerFactory) corev1informers.PodIndexInformer {
	return factory.Core().V1().Pods().TypedInformer()
}

func todaySkipResync(handle func(pod *corev1.Pod)) corev1informers.PodHandlerFuncs {
	return corev1informers.PodHandlerFuncs{
		UpdateFunc: func(old, pod *corev1.Pod) {
			if old.ResourceVersion != pod.ResourceVersion {
				handle(pod)
			}
		},
	}
}

func todayLabel(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.SetLabels(map[string]string{"test": "test"})
	return pod
}

func todayQueue() workqueue.TypedRateLimitingInterface[cache.ObjectName] {
	limiter := workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()
	config := workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{Name: "pods"}
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, config)
}

func todayPoll(ctx context.Context, client kubernetes.Interface) error {
	running := func(ctx context.Context) (bool, error) {
		pod, err := client.CoreV1().Pods("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return pod.Status.Phase == corev1.PodRunning, nil
	}
	return wait.PollUntilContextTimeout(ctx, time.Second, time.Minute, true, running)
}

func todayEvery(ctx context.Context, run func(ctx context.Context)) {
	wait.UntilWithContext(ctx, run, 10*time.Second)
}

func todayLog(ctx context.Context, pods int) {
	klog.FromContext(ctx).V(2).Info("Listed", "pods", pods)
}

func todayReport(ctx context.Context, err error, key cache.ObjectName) {
	utilruntime.HandleErrorWithContext(ctx, err, "Sync failed", "pod", key)
}

func todayFake() kubernetes.Interface {
	return fake.NewClientset()
}

func todayVersion(ctx context.Context, client kubernetes.Interface) (*version.Info, error) {
	return client.Discovery().ServerVersionWithContext(ctx)
}

func todayList(ctx context.Context, client kubernetes.Interface) (*corev1.PodList, error) {
	return client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
}

func todayNamespace() (string, error) {
	data, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	return string(data), err
}

func todayIsGone(err error) bool {
	return apierrors.IsNotFound(err)
}

// TestTodayStopEndsOnBothSignals runs itself in a separate process.
func TestTodayStopEndsOnBothSignals(t *testing.T) {
	if os.Getenv("TODAY_STOP") != "" {
		err := todayStop(func(ctx context.Context) error {
			fmt.Println("ready")
			<-ctx.Done()
			return nil
		})
		fmt.Println("cleaned up", err)
		return
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestTodayStopEndsOnBothSignals$")
		cmd.Env = append(os.Environ(), "TODAY_STOP=yes")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		equal(t, "ready", lines.Scan() && lines.Text() == "ready", true)
		equal(t, "signal", cmd.Process.Signal(signal), nil)
		lines.Scan()
		equal(t, "after "+signal.String(), lines.Text(), "cleaned up <nil>")
		equal(t, "end", cmd.Wait(), nil)
	}
}

// TestTodayInformer has today's forms of one informer in one run, with a delete that was missed.
func TestTodayInformer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(pod("web", 90))
		ctx, cancel := context.WithCancel(t.Context())
		factory := todayFactory(kubernetes.NewForConfigOrDie(server.config()))
		pods := todayInformer(factory)
		equal(t, "set watch error handler", todayOnWatchError(pods), nil)
		var calls []string
		handlers := todayHandlers(func(call string) { calls = append(calls, call) })
		handler, err := todayAddHandlers(pods, handlers)
		if err != nil {
			t.Fatal(err)
		}
		canceled, end := context.WithCancel(t.Context())
		end()
		equal(t, "wait", errors.Is(todayWait(canceled, handler), context.Canceled), true)
		equal(t, "start", todayStart(ctx, factory), nil)
		equal(t, "wait", todayWait(ctx, handler), nil)
		equal(t, "calls", calls, "[added web]")
		server.replace()
		server.expire()
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "calls", calls, "[added web deleted web]")

		equal(t, "watch error handler after the start", todayOnWatchError(pods) != nil, true)
		todayShutdown(cancel, factory)
		_, err = todayAddHandlers(pods, handlers)
		equal(t, "handlers after the end", err != nil, true)
	})
}

func TestTodayRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client := fake.NewClientset(pod("web", 1))
		factory, run := todayFactory(client), todayInformer(todayFactory(client))
		lister, err := todayLister(ctx, factory)
		equal(t, "lister", err, nil)
		pods, err := lister.List(labels.Everything())
		equal(t, "list", err, nil)
		equal(t, "pods", len(pods), 1)
		todayRun(ctx, run)
		equal(t, "run", cache.WaitFor(ctx, "", run.HasSyncedChecker()), true)

		client.ClearActions()
		filtered := todayFiltered(client)
		todayInformer(filtered)
		equal(t, "filtered", todayStart(ctx, filtered), nil)
		equal(t, "namespace", client.Actions()[0].GetNamespace(), "default")

		todayShutdown(cancel, factory)
		todayShutdown(cancel, filtered)
		synctest.Wait()
		equal(t, "stopped", run.IsStopped(), true)
	})
}

func TestTodayForms(t *testing.T) {
	web := pod("web", 1)
	equal(t, "labels of the copy", todayLabel(web).Labels["test"], "test")
	equal(t, "labels of the original", len(web.Labels), 0)

	queue := todayQueue()
	defer queue.ShutDown()
	queue.Add(cache.MetaObjectToName(web))
	queue.Add(cache.MetaObjectToName(web.DeepCopy()))
	equal(t, "length of the queue", queue.Len(), 1)

	missed := corev1informers.DeletedPod{
		FinalStateUnknown: &cache.DeletedFinalStateUnknown{Key: "default/web", Obj: web},
	}
	equal(t, "key of a tombstone", todayDeletedKey(missed), "default/web")

	gone := apierrors.NewNotFound(corev1.Resource("pods"), "web")
	equal(t, "a wrapped error", todayIsGone(fmt.Errorf("sync: %w", gone)), true)

	handled := 0
	handlers := todaySkipResync(func(*corev1.Pod) { handled++ })
	handlers.OnUpdate(web, pod("web", 1))
	equal(t, "after a resync", handled, 0)
	handlers.OnUpdate(web, pod("web", 2))
	equal(t, "after a write", handled, 1)

	pods, err := todayList(t.Context(), fake.NewClientset(web))
	equal(t, "list", err, nil)
	equal(t, "pods", len(pods.Items), 1)

	_, err = todayNamespace()
	equal(t, "a file that only a pod has", os.IsNotExist(err), true)
}

func TestTodayPollEndsWithItsContextOrAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := todayPoll(ctx, fake.NewClientset(pod("web", 1)))
		equal(t, "error", errors.Is(err, context.DeadlineExceeded), true)
		equal(t, "waited", time.Since(begin), 5*time.Second)

		err = todayPoll(t.Context(), fake.NewClientset())
		equal(t, "without a pod", apierrors.IsNotFound(err), true)
		equal(t, "waited", time.Since(begin), 5*time.Second)

		runs := 0
		every, end := context.WithTimeout(t.Context(), 25*time.Second)
		defer end()
		todayEvery(every, func(context.Context) { runs++ })
		equal(t, "runs", runs, 3)
	})
}

func TestLogsGoToTheLoggerOfTheContext(t *testing.T) {
	ctx, logged := logs(t, 2)
	todayLog(ctx, 3)
	todayReport(ctx, errors.New("conflict"), cache.NewObjectName("default", "web"))
	utilruntime.HandleError(errors.New("without a context"))
	log := logged.String()
	for text, want := range map[string]bool{
		"pods=3": true, `err="conflict"`: true, `pod="default/web"`: true, "without a context": false,
	} {
		equal(t, "the log has "+text+"\n"+log, strings.Contains(log, text), want)
	}
}

func TestOnlyNewFakeApplies(t *testing.T) {
	web := applycorev1.Pod("web", "default")
	apply := func(client kubernetes.Interface) error {
		options := metav1.ApplyOptions{FieldManager: "test"}
		_, err := client.CoreV1().Pods("default").Apply(t.Context(), web, options)
		return err
	}
	equal(t, "NewClientset", apply(todayFake()), nil)
	equal(t, "NewSimpleClientset", apply(fake.NewSimpleClientset()) != nil, true)
}

func TestServerVersionEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve()
	s.fail(func(request) error {
		cancel()
		<-ctx.Done() // no answer
		return ctx.Err()
	})
	_, err := todayVersion(ctx, kubernetes.NewForConfigOrDie(s.config()))
	equal(t, "error", errors.Is(err, context.Canceled), true)
	equal(t, "requests", len(s.seen()), 1)
}

// The old way takes the whole of KUBECONFIG for the name of one file.
func TestConfigOfSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	clusters, contexts := filepath.Join(dir, "clusters"), filepath.Join(dir, "contexts")
	for path, text := range map[string]string{
		clusters: "clusters: [{name: a, cluster: {server: 'https://a.example'}}]",
		contexts: "contexts: [{name: a, context: {cluster: a}}]\ncurrent-context: a",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBECONFIG", clusters+string(filepath.ListSeparator)+contexts)
	config, err := todayConfig("", "")
	if err != nil || config.Host != "https://a.example" {
		t.Errorf("%v, error %v", config, err)
	}
	//nolint:forbidigo // the old way is what is measured
	if _, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")); err == nil {
		t.Error("the old way found a server, too")
	}
}

func dynamicStart(
	ctx context.Context, client dynamic.Interface,
) (dynamicinformer.DynamicSharedInformerFactory, cache.GenericLister, error) {
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	pods := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	lister := pods.Lister() // before the start
	factory.Start(ctx.Done())
	for resource, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, nil, fmt.Errorf("sync %s: %w", resource, context.Cause(ctx))
		}
	}
	return factory, lister, nil
}

func metadataStart(
	ctx context.Context, client metadata.Interface,
) (metadatainformer.SharedInformerFactory, cache.GenericLister, error) {
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	pods := factory.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
	lister := pods.Lister()
	factory.Start(ctx.Done())
	for resource, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return nil, nil, fmt.Errorf("sync %s: %w", resource, context.Cause(ctx))
		}
	}
	return factory, lister, nil
}

// This test fails when a new client-go gives these interfaces the forms with a context.
func TestDynamicAndMetadataFactoriesHaveNoContext(t *testing.T) {
	for _, factory := range []reflect.Type{
		reflect.TypeFor[dynamicinformer.DynamicSharedInformerFactory](),
		reflect.TypeFor[metadatainformer.SharedInformerFactory](),
	} {
		for _, method := range []string{"StartWithContext", "WaitForCacheSyncWithContext"} {
			_, ok := factory.MethodByName(method)
			equal(t, factory.String()+" has "+method, ok, false)
		}
	}
	config := serve(pod("web", 90)).config()
	for name, start := range map[string]func(context.Context) (untyped, cache.GenericLister, error){
		"dynamic": func(ctx context.Context) (untyped, cache.GenericLister, error) {
			return dynamicStart(ctx, dynamic.NewForConfigOrDie(config))
		},
		"metadata": func(ctx context.Context) (untyped, cache.GenericLister, error) {
			return metadataStart(ctx, metadata.NewForConfigOrDie(config))
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			factory, lister, err := start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(factory.Shutdown)
			pods, err := lister.List(labels.Everything())
			equal(t, name+": error", err, nil)
			equal(t, name+": pods", len(pods), 1)

			broken, fail := context.WithCancelCause(t.Context())
			fail(errors.New("no time"))
			_, _, err = start(broken)
			equal(t, name+": the wait has no error", err, "sync /v1, Resource=pods: no time")
		})
	}
}
