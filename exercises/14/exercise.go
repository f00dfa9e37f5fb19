// Exercise 14: after 12-production. Run go test ./14 until it passes; hint.md has a hint.

package exercise

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Run calls act again and again while this replica holds the Lease. A call can take a while; it
// ends early if its context ends. When Run returns, main exits, and the kubelet starts the
// program again.
func Run(ctx context.Context, client kubernetes.Interface, identity string, act func(context.Context)) error {
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: "default", Name: "controller"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: 15 * time.Second,
		RenewDeadline: 10 * time.Second,
		RetryPeriod:   2 * time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { wait.UntilWithContext(ctx, act, time.Second) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("elect a leader: %w", err)
	}
	// A replica that has lost the Lease competes for it again.
	wait.UntilWithContext(ctx, elector.Run, time.Second)
	return nil
}
