package older

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog"
)

func Poll(client kubernetes.Interface) error {
	return wait.PollImmediate(time.Second, time.Minute, func() (bool, error) {
		pod, err := client.CoreV1().Pods("default").Get(context.TODO(), "web", metav1.GetOptions{})
		return err == nil && pod.Status.Phase == "Running", nil
	})
}

func Every(run func(), stop <-chan struct{}) {
	go wait.Until(run, 10*time.Second, stop)
}

func Log(pods int) {
	klog.V(2).Infof("%d pods", pods)
}

func Report(err error) {
	utilruntime.HandleError(err)
}

func NewFake() kubernetes.Interface {
	return fake.NewSimpleClientset()
}
