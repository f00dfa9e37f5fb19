package older

import (
	"log"
	"os"
	"os/signal"
	"reflect"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listersv1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

func Stop(run func(stop <-chan struct{})) {
	stop := make(chan struct{})
	defer close(stop)
	go run(stop)
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt)
	<-sig
}

func StopNever(factory informers.SharedInformerFactory) {
	stop := make(chan struct{}) // nobody closes it
	defer log.Println("bye")
	factory.Start(stop)
	<-stop
}

func NewFactory(client kubernetes.Interface) informers.SharedInformerFactory {
	// refetch all pods every 30 seconds, in case an event was lost
	return informers.NewSharedInformerFactory(client, 30*time.Second)
}

func NewFiltered(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewFilteredSharedInformerFactory(client, 0, "default",
		func(options *metav1.ListOptions) { options.LabelSelector = "app=web" })
}

func NewInformer(client rest.Interface, handler cache.ResourceEventHandler) cache.Controller {
	pods := cache.NewListWatchFromClient(client, "pods", v1.NamespaceAll, fields.Everything())
	_, controller := cache.NewInformer(pods, &v1.Pod{}, 0, handler)
	return controller
}

func GoStart(factory informers.SharedInformerFactory, stop <-chan struct{}) {
	go factory.Start(stop)
	factory.WaitForCacheSync(stop)
}

func LateLister(factory informers.SharedInformerFactory) listersv1.PodLister {
	factory.Start(wait.NeverStop)
	factory.WaitForCacheSync(wait.NeverStop)
	return factory.Core().V1().Pods().Lister()
}

func Run(informer cache.SharedIndexInformer, stop <-chan struct{}) {
	go informer.Run(stop)
}

func Wait(informer cache.SharedIndexInformer, stop <-chan struct{}) {
	if ok := cache.WaitForCacheSync(stop, informer.HasSynced); !ok {
		log.Println("cache is not synced")
	}
	log.Println("cache is synced")
}

func OnWatchError(informer cache.SharedIndexInformer) {
	informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
		log.Println("watch:", err)
	})
}

func StopInformers(stop chan struct{}) {
	close(stop) // and main returns
}

func SkipResync(handle func(pod *v1.Pod)) cache.ResourceEventHandlerFuncs {
	return cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, new interface{}) {
			if !reflect.DeepEqual(old, new) {
				handle(new.(*v1.Pod))
			}
		},
	}
}
