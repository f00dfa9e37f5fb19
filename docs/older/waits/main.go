// Waits counts how often a wait for the cache returns before the handler has been called for every
// pod that was there. It compiles with client-go v0.34 to v0.37, so it uses the forms of v0.34. Do
// not copy them into new code.
//
//	go run ./with v0.35.10 run ./waits                 # the fake clientset
//	go run ./waits -kubeconfig FILE -namespace NAME    # a cluster, in which the pods are
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	kubeconfig = flag.String("kubeconfig", "", "`path` of a cluster's kubeconfig (default: the fake clientset)")
	namespace  = flag.String("namespace", "default", "`name` of the namespace with the pods")
	pods       = flag.Int("pods", 1000, "how many pods there are")
	runs       = flag.Int("runs", 50, "how often to try each wait")
)

// A Row is the result of one wait.
type Row struct {
	ClientGo  string `json:"clientGo"`
	Clientset string `json:"clientset"` // fake or cluster
	Pods      int    `json:"pods"`
	Wait      string `json:"wait"`  // for the factory, the informer or the registration
	Early     int    `json:"early"` // runs in which some Adds had not been delivered yet
	Runs      int    `json:"runs"`
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	client, clientset, err := newClient()
	if err != nil {
		return err
	}
	for _, wait := range []string{"factory", "informer", "registration"} {
		row := Row{ClientGo: clientGo(), Clientset: clientset, Pods: *pods, Wait: wait, Runs: *runs}
		for range *runs {
			early, err := isEarly(client, wait)
			if err != nil {
				return err
			}
			if early {
				row.Early++
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(row); err != nil {
			return err
		}
	}
	return nil
}

// isEarly says whether a wait has returned before each Add was delivered.
func isEarly(client kubernetes.Interface, wait string) (bool, error) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(*namespace))
	informer := factory.Core().V1().Pods().Informer()
	var added atomic.Int64
	handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { added.Add(1) },
	})
	if err != nil {
		return false, err
	}
	stop := make(chan struct{})
	defer factory.Shutdown()
	defer close(stop)
	factory.Start(stop)
	var synced bool
	switch wait {
	case "factory":
		synced = factory.WaitForCacheSync(stop)[reflect.TypeFor[*corev1.Pod]()]
	case "informer":
		synced = cache.WaitForCacheSync(stop, informer.HasSynced)
	case "registration":
		synced = cache.WaitForCacheSync(stop, handler.HasSynced)
	}
	seen := int(added.Load())
	if stored := len(informer.GetStore().ListKeys()); !synced || stored != *pods {
		return false, fmt.Errorf("synced is %t with %d pods in the store, want true with %d", synced, stored, *pods)
	}
	return seen < *pods, nil
}

func newClient() (client kubernetes.Interface, clientset string, err error) {
	if *kubeconfig == "" {
		objects := make([]runtime.Object, *pods)
		for i := range objects {
			name := fmt.Sprint("pod-", i)
			objects[i] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: *namespace, Name: name}}
		}
		return fake.NewClientset(objects...), "fake", nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: *kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("load kubeconfig: %w", err)
	}
	config.QPS = -1 // a client's own rate limit would delay some runs
	client, err = kubernetes.NewForConfig(config)
	return client, "cluster", err
}

// clientGo returns the version of client-go that this program was built with.
func clientGo() string {
	info, _ := debug.ReadBuildInfo()
	for _, dep := range info.Deps {
		if dep.Path == "k8s.io/client-go" {
			return dep.Version
		}
	}
	return "unknown"
}
