// Stands for programs that cannot be built here: says yes, with no text, to whatever their ports are asked.
package main

import (
	"log"
	"net/http"
)

func main() {
	yes := func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "text/plain; version=0.0.4")
	}
	ended := make(chan error)
	for _, port := range []string{":3000", ":8080", ":8081"} {
		go func() { ended <- http.ListenAndServe(port, http.HandlerFunc(yes)) }()
	}
	log.Fatal(<-ended)
}
