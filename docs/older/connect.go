// Package older holds what tutorials from 2018 to 2022 write. It compiles with the client-go of 2021
// and with today's, so its tests and the linters show what that code does today.
// docs/older-code.md shows each function next to what to write now.
package older

import (
	"flag"
	"log"
	"path/filepath"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/homedir"
)

func LoadConfig() (*rest.Config, error) {
	path := filepath.Join(homedir.HomeDir(), ".kube", "config")
	kubeconfig := flag.String("kubeconfig", path, "kubeconfig config file")
	flag.Parse()
	return clientcmd.BuildConfigFromFlags("", *kubeconfig)
}

func NewClient(loadConfig func() (*rest.Config, error)) kubernetes.Interface {
	config, err := loadConfig()
	if err != nil {
		log.Printf("Building config from flags, %s", err.Error())
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Printf("getting kubernetes client set %s", err.Error())
	}
	return client
}

func ServerVersion(client kubernetes.Interface) (*version.Info, error) {
	return client.Discovery().ServerVersion()
}

func IsGone(err error) bool {
	status, ok := err.(*errors.StatusError)
	return ok && status.ErrStatus.Reason == "NotFound"
}
