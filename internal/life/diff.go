package life

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// A Change is that of one field. Old or New is "" where there was or is none.
type Change struct{ Path, Old, New string }

func (c Change) String() string {
	switch {
	case c.Old == "":
		return c.Path + ": " + c.New
	case c.New == "":
		return c.Path + " removed"
	}
	return c.Path + ": " + c.Old + " → " + c.New
}

var converter = applyconfigurations.NewTypeConverter(scheme.Scheme)

// Diff compares two versions by the schema that managedFields follow: items of a
// list are found by their key, not by their place.
func Diff(old, now *corev1.Pod) ([]Change, error) {
	before, err := converter.ObjectToTyped(bare(old))
	if err != nil {
		return nil, err
	}
	after, err := converter.ObjectToTyped(bare(now))
	if err != nil {
		return nil, err
	}
	diff, err := before.Compare(after)
	if err != nil {
		return nil, err
	}
	changes := map[string]Change{}
	for _, set := range []*fieldpath.Set{diff.Added, diff.Modified, diff.Removed} {
		for path := range set.Leaves().All() {
			name := pathName(path)
			changes[name] = Change{name, at(before.AsValue(), path), at(after.AsValue(), path)}
		}
	}
	var all []Change
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		all = append(all, changes[name])
	}
	return all, nil
}

// bare is a pod without what each write changes.
func bare(pod *corev1.Pod) *corev1.Pod {
	if pod == nil {
		return &corev1.Pod{}
	}
	pod = pod.DeepCopy()
	pod.ManagedFields, pod.ResourceVersion = nil, ""
	return pod
}

// pathName writes .status.conditions[type="Ready"].status as
// status.conditions[Ready].status.
func pathName(path fieldpath.Path) string {
	var b strings.Builder
	for _, e := range path {
		if e.Key == nil {
			b.WriteString(e.String())
			continue
		}
		var key []string
		for _, f := range *e.Key {
			key = append(key, text(f.Value))
		}
		b.WriteString("[" + strings.Join(key, ",") + "]")
	}
	return strings.TrimPrefix(b.String(), ".")
}

// at is what stands at a path.
func at(v value.Value, path fieldpath.Path) string {
	for _, e := range path {
		switch {
		case v == nil || v.IsNull():
			return ""
		case e.FieldName != nil:
			if !v.IsMap() {
				return ""
			}
			next, ok := v.AsMap().Get(*e.FieldName)
			if !ok {
				return ""
			}
			v = next
		case e.Key != nil:
			v = item(v, *e.Key)
		case e.Index != nil:
			if !v.IsList() || *e.Index >= v.AsList().Length() {
				return ""
			}
			v = v.AsList().At(*e.Index)
		default:
			return text(*e.Value)
		}
	}
	if v == nil || v.IsNull() {
		return ""
	}
	return text(v)
}

// item is the one in a list with a key.
func item(list value.Value, key value.FieldList) value.Value {
	if !list.IsList() {
		return nil
	}
	for i := range list.AsList().Length() {
		one := list.AsList().At(i)
		if one.IsMap() && !slices.ContainsFunc(key, func(f value.Field) bool {
			got, ok := one.AsMap().Get(f.Name)
			return !ok || !value.Equals(got, f.Value)
		}) {
			return one
		}
	}
	return nil
}

func text(v value.Value) string {
	if v.IsString() {
		return v.AsString()
	}
	return fmt.Sprint(value.ToString(v))
}
