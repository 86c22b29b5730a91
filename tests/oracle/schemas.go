package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubeschema "k8s.io/apimachinery/pkg/runtime/schema"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"istio.io/istio/manifests"
)

// customResource is what the API server holds one version of a kind against.
type customResource struct {
	structural *schema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// crds gives the schemas that Istio's base chart installs.
func crds() map[kubeschema.GroupVersionKind]customResource {
	raw, err := manifests.FS.ReadFile("charts/base/files/crd-all.gen.yaml")
	check(err)
	out := map[kubeschema.GroupVersionKind]customResource{}
	for _, document := range strings.Split("\n"+string(raw), "\n---") {
		var v1 apiextensionsv1.CustomResourceDefinition
		check(yaml.Unmarshal([]byte(document), &v1))
		var definition apiextensions.CustomResourceDefinition
		check(apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&v1, &definition, nil))
		for _, version := range definition.Spec.Versions {
			given := version.Schema
			if given == nil {
				given = definition.Spec.Validation
			}
			if given == nil {
				continue
			}
			validator, _, err := validation.NewSchemaValidator(given.OpenAPIV3Schema)
			check(err)
			structural, err := schema.NewStructural(given.OpenAPIV3Schema)
			check(err)
			gvk := kubeschema.GroupVersionKind{Group: definition.Spec.Group, Version: version.Name, Kind: definition.Spec.Names.Kind}
			out[gvk] = customResource{structural, validator, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
		}
	}
	return out
}

// admit does what the API server does before it asks a webhook: nulls and defaults, types, CEL rules, and unknown
// fields, which `kubectl` has it refuse.
func (c customResource) admit(object *unstructured.Unstructured) error {
	content := object.Object
	defaulting.PruneNonNullableNullsWithoutDefaults(content, c.structural)
	defaulting.Default(content, c.structural)
	problems := validation.ValidateCustomResource(nil, content, c.validator)
	problems = append(problems, listtype.ValidateListSetsAndMaps(nil, c.structural, content)...)
	if len(problems) > 0 {
		return problems.ToAggregate()
	}
	track := schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	if unknown := pruning.PruneWithOptions(object.DeepCopy().Object, c.structural, true, track); len(unknown) > 0 {
		return fmt.Errorf("unknown fields %v", unknown)
	}
	broken, _ := c.rules.Validate(context.Background(), nil, c.structural, content, nil, celconfig.RuntimeCELCostBudget)
	return broken.ToAggregate()
}
