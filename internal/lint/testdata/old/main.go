// Old forms that the linters of this repository must reject: see lint_test.go. Others are in docs/older.
package main

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

func main() {
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	typed := factory.Core().V1().Pods().TypedInformer()
	typed.SetWatchErrorHandler(nil)
	typed.AddEventHandler(nil)
	stop := make(chan struct{})
	go typed.Run(stop)
	factory.WaitForCacheSync(stop)
	if _, err := get(context.Background(), client); err != nil {
		panic(fmt.Errorf("get pod: %v", err))
	}
}

func get(ctx context.Context, client kubernetes.Interface) (*v1.Pod, error) {
	return getWithoutContext(client)
}

func getWithoutContext(client kubernetes.Interface) (*v1.Pod, error) {
	return client.CoreV1().Pods("default").Get(context.Background(), "nginx", metav1.GetOptions{})
}
