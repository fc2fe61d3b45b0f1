package verifier

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// NewCache returns a cache that holds the projected Secret and nothing else: a receiver may read no other, and a manager's
// cache of all Secrets holds their metadata only.
func NewCache(config *rest.Config, mapper meta.RESTMapper, secret client.ObjectKey) (cache.Cache, error) {
	return cache.New(config, cache.Options{
		Mapper:               mapper,
		DefaultNamespaces:    map[string]cache.Config{secret.Namespace: {}},
		DefaultFieldSelector: fields.OneTermEqualSelector("metadata.name", secret.Name),
		DefaultTransform:     cache.TransformStripManagedFields(),
	})
}
