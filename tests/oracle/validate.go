package main

import (
	"encoding/json"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubeschema "k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/config/schema/resource"
)

// verdict is what becomes of one document: refused by the API server (its CRD's schema and CEL rules) or by istiod's
// webhook, and what the webhook warns of.
type verdict struct {
	Error   string `json:"error,omitempty"`
	Warning string `json:"warning,omitempty"`
}

// validateAll answers each YAML document, which comes as a JSON string, with a verdict on a line.
func validateAll(documents *json.Decoder, verdicts *json.Encoder) {
	schemas := crds()
	for {
		var document string
		err := documents.Decode(&document)
		if err == io.EOF {
			return
		}
		check(err)
		warning, err := validate(schemas, document)
		var given verdict
		if warning != nil {
			given.Warning = warning.Error()
		}
		if err != nil {
			given.Error = err.Error()
		}
		check(verdicts.Encode(given))
	}
}

func validate(schemas map[kubeschema.GroupVersionKind]customResource, document string) (warning, err error) {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(document), object); err != nil {
		return nil, err
	}
	if object.GetNamespace() == "" {
		object.SetNamespace("default")
	}
	gvk := object.GroupVersionKind()
	schema, known := collections.Pilot.FindByGroupVersionAliasesKind(resource.FromKubernetesGVK(&gvk))
	definition, installed := schemas[gvk]
	if !known || !installed {
		return nil, fmt.Errorf("unrecognized type %v", gvk)
	}
	if err := definition.admit(object); err != nil {
		return nil, err
	}
	raw, err := object.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var kind crd.IstioKind
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, err
	}
	config, err := crd.ConvertObject(schema, &kind, "cluster.local")
	if err != nil {
		return nil, err
	}
	return schema.ValidateConfig(*config)
}
