package groupwriter

import (
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

const (
	// maxSeen is the number of objects that are remembered, and maxSeenBytes how large one may be: together they bound the
	// memory to some 32 MiB, however many groups there are.
	maxSeen      = 4096
	maxSeenBytes = 8 << 10
)

// LastSeen remembers GroupInfos as the last write left them, the recently written ones, so that the next write to one needs
// no read. What it remembers may be outdated: a patch is guarded by the resourceVersion, so all that an outdated object
// costs is a conflict, after which the live object is read. It is safe for concurrent use; nil remembers nothing.
type LastSeen struct {
	objects *lru.Cache
}

// NewLastSeen returns an empty memory.
func NewLastSeen() *LastSeen { return &LastSeen{lru.New(maxSeen)} }

// get returns a copy of the object as it was last seen, or nil.
func (l *LastSeen) get(key client.ObjectKey) *openimv1.GroupInfo {
	if l == nil {
		return nil
	}
	remembered, found := l.objects.Get(key)
	if !found {
		return nil
	}
	object, ok := remembered.(*openimv1.GroupInfo)
	if !ok {
		return nil
	}
	return object.DeepCopy()
}

// put remembers the object, which belongs to the memory from then on.
func (l *LastSeen) put(object *openimv1.GroupInfo) {
	if l == nil {
		return
	}
	key := client.ObjectKeyFromObject(object)
	if textBytes(object) > maxSeenBytes {
		l.objects.Remove(key)
		return
	}
	object.ManagedFields = nil
	object.Status = openimv1.GroupInfoStatus{}
	l.objects.Add(key, object)
}

// forget drops what was remembered of an object.
func (l *LastSeen) forget(key client.ObjectKey) {
	if l != nil {
		l.objects.Remove(key)
	}
}

// textBytes is what can make an object large: OpenIM's texts, and whatever users add to the metadata.
func textBytes(object *openimv1.GroupInfo) int {
	sum := 0
	for _, text := range []*string{
		object.Spec.GroupName, object.Spec.Notification, object.Spec.Introduction, object.Spec.FaceURL, object.Spec.Ex,
	} {
		if text != nil {
			sum += len(*text)
		}
	}
	for _, pairs := range []map[string]string{object.Labels, object.Annotations} {
		for key, value := range pairs {
			sum += len(key) + len(value)
		}
	}
	return sum
}
