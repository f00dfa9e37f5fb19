package nocontext

import (
	"testing"

	"k8s.io/client-go/kubernetes/fake"
)

func TestList(t *testing.T) {
	if err := List(fake.NewSimpleClientset()); err != nil {
		t.Fatal(err)
	}
}
