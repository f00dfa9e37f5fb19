// A sample of what informer tutorials wrote until about 2021. It compiles, it
// even runs, and the linters of this repository must reject it: see lint_test.go.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(os.Getenv("HOME"), ".kube", "config"))
	if err != nil {
		panic(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	fmt.Println(client.Discovery().ServerVersion())

	factory := informers.NewFilteredSharedInformerFactory(client, 30*time.Second, "default", nil)
	informer := factory.Core().V1().Pods().Informer()
	informer.SetWatchErrorHandler(func(*cache.Reflector, error) {})
	informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(obj interface{}) { fmt.Println(obj.(*v1.Pod).Name) },
	})

	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	if !cache.WaitForCacheSync(stop, informer.HasSynced) {
		return
	}
	go informer.Run(stop)

	typed := factory.Core().V1().Pods().TypedInformer()
	typed.SetWatchErrorHandler(nil)
	typed.AddEventHandler(nil)
	go typed.Run(stop)

	_ = wait.PollImmediate(time.Second, time.Minute, func() (bool, error) {
		_, err := get(context.Background(), client)
		if _, ok := err.(*errors.StatusError); ok {
			return false, fmt.Errorf("get pod: %v", err)
		}
		return true, nil
	})
}

func get(ctx context.Context, client kubernetes.Interface) (*v1.Pod, error) {
	return getWithoutContext(client)
}

func getWithoutContext(client kubernetes.Interface) (*v1.Pod, error) {
	return client.CoreV1().Pods("default").Get(context.Background(), "nginx", metav1.GetOptions{})
}
