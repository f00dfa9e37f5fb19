//go:build v0.17

// Package nocontext holds code from before client-go v0.18, which added a context to each
// request. Run its test with
//
//	go run ./with v0.17.17 test ./nocontext
package nocontext

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog"
)

func List(client kubernetes.Interface) error {
	pods, err := client.CoreV1().Pods("default").List(metav1.ListOptions{})
	if err != nil {
		return err
	}
	klog.Infof("%d pods", len(pods.Items))
	return nil
}
