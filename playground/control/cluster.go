package control

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"example.com/informers/playground/engine"
)

// NewNamespace makes a namespace on a cluster, and returns its name when pods can be created in it.
func NewNamespace(ctx context.Context, config *rest.Config) (string, error) {
	client, err := engine.NewClient(config)
	if err != nil {
		return "", err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "playground-"}}
	if err := client.Post().Resource("namespaces").Body(namespace).Do(ctx).Into(namespace); err != nil {
		return "", err
	}
	// A pod is refused until its service account exists.
	var last error
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = client.Post().Namespace(namespace.Name).Resource("pods").Param("dryRun", metav1.DryRunAll).
			Body(newPod("web", Command{})).Do(ctx).Error()
		return last == nil, nil
	})
	if err != nil {
		_ = RemoveNamespace(context.WithoutCancel(ctx), config, namespace.Name)
		return "", fmt.Errorf("%w: %w", err, last)
	}
	return namespace.Name, nil
}

// RemoveNamespace removes a namespace with its pods, and returns when it is gone.
func RemoveNamespace(ctx context.Context, config *rest.Config, name string) error {
	if err := (&Playground{Server: Server{Config: config, Namespace: name}}).Clear(ctx); err != nil {
		return err
	}
	client, err := engine.NewClient(config)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := client.Delete().Resource("namespaces").Name(name).Do(ctx).Error()
		if apierrors.IsConflict(err) { // it is on its way
			return false, nil
		}
		return apierrors.IsNotFound(err), ignore(err)
	})
}

// Clear removes the pods of the namespace, and returns when they are gone.
func (p *Playground) Clear(ctx context.Context) error {
	client, err := engine.NewClient(p.Config)
	if err != nil {
		return err
	}
	now := int64(0)
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		pods := &corev1.PodList{}
		if err := client.Get().Namespace(p.Namespace).Resource("pods").Do(ctx).Into(pods); err != nil {
			return false, err
		}
		for _, pod := range pods.Items {
			if len(pod.Finalizers) > 0 {
				if err := p.release(ctx, client, pod.Name); ignore(err) != nil {
					return false, err
				}
			}
			err := client.Delete().Namespace(p.Namespace).Resource("pods").Name(pod.Name).
				Body(&metav1.DeleteOptions{GracePeriodSeconds: &now}).Do(ctx).Error()
			if ignore(err) != nil {
				return false, err
			}
		}
		return len(pods.Items) == 0, nil
	})
}

// ignore leaves out that a pod is not there any more.
func ignore(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
