// gomemcache: every read is a gets.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

type wrong string

func same(got, wanted interface{}, what string) {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		panic(wrong(fmt.Sprintf("%s: %v instead of %v", what, got, wanted)))
	}
}

func good(err error, what string) {
	if err != nil {
		panic(fmt.Errorf("%s: %v", what, err))
	}
}

func life(cache *memcache.Client, name string) {
	good(cache.Set(&memcache.Item{Key: name, Value: []byte("value"), Flags: 7, Expiration: 60}), "set")
	item, err := cache.Get(name)
	good(err, "get")
	same(string(item.Value), "value", "get")
	same(item.Flags, 7, "flags")
	keys := []string{"nothing"}
	for n := 0; n < 100; n++ {
		key := name + strconv.Itoa(n)
		keys = append(keys, key)
		good(cache.Set(&memcache.Item{Key: key, Value: []byte("x")}), "set")
	}
	found, err := cache.GetMulti(keys)
	good(err, "get of many")
	same(len(found), 100, "get of many")
	used := *item
	item.Value = []byte("newer")
	good(cache.CompareAndSwap(item), "cas")
	same(cache.CompareAndSwap(&used), memcache.ErrCASConflict, "a used cas")
	same(cache.Add(&memcache.Item{Key: name, Value: []byte("x")}), memcache.ErrNotStored, "add of what is there")
	good(cache.Replace(&memcache.Item{Key: name, Value: []byte("10")}), "replace")
	number, err := cache.Increment(name, 5)
	good(err, "increment")
	same(number, 15, "increment")
	number, err = cache.Decrement(name, 3)
	good(err, "decrement")
	same(number, 12, "decrement")
	_, err = cache.Increment(name+"-none", 1)
	same(err, memcache.ErrCacheMiss, "increment of nothing")
	good(cache.Touch(name, 30), "touch")
	good(cache.Delete(name), "delete")
	same(cache.Delete(name), memcache.ErrCacheMiss, "delete of nothing")
	good(cache.Set(&memcache.Item{Key: name, Value: []byte("x")}), "set")
	good(cache.FlushAll(), "flush")
	_, err = cache.Get(name)
	same(err, memcache.ErrCacheMiss, "flushed")
}

func round(cache *memcache.Client, n int) (err interface{}) {
	defer func() { err = recover() }()
	key := "key" + strconv.Itoa(n%50)
	good(cache.Set(&memcache.Item{Key: key, Value: []byte(strconv.Itoa(n))}), "set")
	item, failed := cache.Get(key)
	good(failed, "get")
	same(string(item.Value), n, "get")
	number, failed := cache.Increment(key, 1)
	good(failed, "increment")
	same(number, n+1, "increment")
	good(cache.Delete(key), "delete")
	return nil
}

func main() {
	cache := memcache.New("127.0.0.1:" + os.Args[1])
	cache.Timeout = 20 * time.Second
	seconds, _ := strconv.ParseFloat(os.Args[2], 64)
	life(cache, "first")
	fmt.Println("looping")
	rounds, errors, wrongs, first := 0, 0, 0, ""
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(end) {
		rounds++
		err := round(cache, rounds)
		if err == nil {
			continue
		}
		if _, is := err.(wrong); is {
			wrongs++
		} else {
			errors++
		}
		if first == "" {
			first = fmt.Sprintf("round %d: %v", rounds, err)
		}
	}
	life(cache, "last")
	fmt.Printf("rounds=%d errors=%d wrong=%d first=%s\n", rounds, errors, wrongs, first)
}
