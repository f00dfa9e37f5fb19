package older

import (
	"fmt"
	"log"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

func Handlers() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj interface{}) {
			log.Println("added", obj.(*v1.Pod).Name)
		},
		DeleteFunc: func(obj interface{}) {
			log.Println("deleted", obj.(*v1.Pod).Name)
		},
	}
}

func AddHandlers(informer cache.SharedIndexInformer, handlers cache.ResourceEventHandler) {
	informer.AddEventHandler(handlers)
}

func DeletedKey(obj interface{}) string {
	key, err := cache.MetaNamespaceKeyFunc(obj)
	if err != nil {
		log.Printf("failed to get key from the cache %s", err.Error())
		return ""
	}
	return key
}

func LabelInPlace(obj interface{}) {
	pod := obj.(*v1.Pod)
	pod.SetLabels(map[string]string{"test": "test"})
	fmt.Println(pod.GetLabels())
}

func NewQueue() workqueue.RateLimitingInterface {
	limiter := workqueue.DefaultControllerRateLimiter()
	return workqueue.NewNamedRateLimitingQueue(limiter, "pods")
}
