// Go's own server and client.
package main

import (
	"fmt"
	"io"
	"net/http"
)

var passedOn = []string{"traceparent", "tracestate", "x-request-id", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}

func answer(w http.ResponseWriter, r *http.Request) {
	call, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://ratings:9080/", nil)
	for _, name := range passedOn {
		if value := r.Header.Get(name); value != "" {
			call.Header.Set(name, value)
		}
	}
	response, err := http.DefaultClient.Do(call)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	w.WriteHeader(response.StatusCode)
	fmt.Fprintf(w, "go < %s", body)
}

func main() {
	http.HandleFunc("/", answer)
	panic(http.ListenAndServe(":9080", nil))
}
