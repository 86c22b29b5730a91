// Command descriptors writes the official descriptors of everything that a proxy is ever sent, as a FileDescriptorSet, gzipped.
//
// The roots below and what they import, taken from the modules that Istio's compiler itself is built with, so that both validate alike:
//
//	go run ./descriptors ../../devmesh/xds/descriptors.binpb.gz
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"sort"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/cncf/xds/go/udpa/type/v1"
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "istio.io/istio/pkg/config/xds" // registers every Envoy type that Istio knows
	_ "istio.io/istio/pkg/dns/proto"
)

// roots are the messages and services that a proxy is sent, or may find in an Any.
var roots = []string{
	"envoy.service.discovery.v3.AggregatedDiscoveryService",
	"envoy.config.listener.v3.Listener",
	"envoy.config.route.v3.RouteConfiguration",
	"envoy.config.cluster.v3.Cluster",
	"envoy.config.endpoint.v3.ClusterLoadAssignment",
	"envoy.extensions.transport_sockets.tls.v3.Secret",
	"istio.networking.nds.v1.NameTable",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
	"envoy.extensions.filters.network.rbac.v3.RBAC",
	"envoy.extensions.filters.http.cors.v3.CorsPolicy",
	"envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
	"envoy.extensions.filters.http.fault.v3.HTTPFault",
	"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
	"envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
	"envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
	"envoy.extensions.filters.http.rbac.v3.RBAC",
	"envoy.extensions.filters.http.router.v3.Router",
	"envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
	"envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
	"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
	"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
	"envoy.extensions.access_loggers.file.v3.FileAccessLog",
	"envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
	"envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
	"envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
	"envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
	"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
	"envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
	"envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
	"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
	"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
	"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
	"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
	"envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
	"envoy.config.trace.v3.OpenTelemetryConfig",
	"envoy.config.trace.v3.ZipkinConfig",
	"udpa.type.v1.TypedStruct",
	"xds.type.v3.TypedStruct",
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: descriptors FILE [MESSAGE ...]")
		os.Exit(2)
	}
	files := map[string]protoreflect.FileDescriptor{}
	for _, name := range append(roots, os.Args[2:]...) {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		collect(files, found.ParentFile())
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, path := range sorted(files) {
		set.File = append(set.File, stripped(files[path]))
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		panic(err)
	}
	var out bytes.Buffer
	zipped, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if _, err = zipped.Write(raw); err == nil {
		err = zipped.Close()
	}
	if err == nil {
		err = os.WriteFile(os.Args[1], out.Bytes(), 0o644)
	}
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d files, %d bytes, %d gzipped\n", len(set.File), len(raw), out.Len())
}

func collect(files map[string]protoreflect.FileDescriptor, file protoreflect.FileDescriptor) {
	if file.IsPlaceholder() || files[file.Path()] != nil {
		return
	}
	files[file.Path()] = file
	for i := range file.Imports().Len() {
		collect(files, file.Imports().Get(i).FileDescriptor)
	}
}

// sorted puts imports before the files that name them, which is the order in which a pool takes them.
func sorted(files map[string]protoreflect.FileDescriptor) []string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var out []string
	done := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		if done[name] || files[name] == nil {
			return
		}
		done[name] = true
		for i := range files[name].Imports().Len() {
			visit(files[name].Imports().Get(i).Path())
		}
		out = append(out, name)
	}
	for _, name := range names {
		visit(name)
	}
	return out
}

// stripped leaves out Go package names, which say nothing about a message.
func stripped(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorProto {
	out := protodesc.ToFileDescriptorProto(file)
	if out.Options != nil {
		out.Options.GoPackage, out.Options.JavaPackage, out.Options.JavaOuterClassname = nil, nil, nil
		out.Options.CsharpNamespace, out.Options.RubyPackage, out.Options.ObjcClassPrefix, out.Options.PhpNamespace = nil, nil, nil, nil
	}
	return out
}
